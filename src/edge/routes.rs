//! Which pool a request belongs to, and which pools a worker's origins reach. Sockets and queues never enter.

use super::config::EdgeConfig;
use crate::ids::PoolId;
use crate::wire::origin::{Origin, OriginPattern};
use std::collections::HashMap;
use std::fmt;

/// The routing table of one configuration. A lookup allocates nothing.
#[derive(Debug, Default)]
pub struct Routes {
    /// Entries that name a host: whole origins, and the bare host.
    hosts: HashMap<Box<str>, HostEntry>,
    /// By what follows `*.`.
    wildcards: HashMap<Box<str>, Prefixes>,
    any: Option<Prefixes>,
    names: HashMap<Box<str>, PoolId>,
}

#[derive(Debug, Default)]
struct HostEntry {
    /// One element for each scheme and port that the configuration names; rarely more than two.
    origins: Vec<(OriginPattern, Prefixes)>,
    bare: Option<Prefixes>,
}

/// The pools of one origin entry with their path prefixes, longest first.
#[derive(Debug, Default)]
struct Prefixes(Vec<(Box<str>, PoolId)>);

/// What of the table a request meets. `Display` shows it as the configuration writes it.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'r> {
    Origin(&'r OriginPattern),
    Host(&'r str),
    /// Without `*.`.
    Wildcard(&'r str),
    Any,
}

impl fmt::Display for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Entry::Origin(origin) => write!(f, "{origin}"),
            Entry::Host(host) => f.write_str(host),
            Entry::Wildcard(parent) => write!(f, "*.{parent}"),
            Entry::Any => f.write_str("*"),
        }
    }
}

/// Where a request belongs, and by which words of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Found<'r> {
    pub entry: Entry<'r>,
    /// The path prefix, and the pool that has it. `None`: no pool of this entry takes the path.
    pub place: Option<(&'r str, PoolId)>,
}

impl Routes {
    /// # Panics
    /// With more pools than `limits::POOLS_MAX`, which no checked configuration has.
    #[must_use]
    pub fn new(config: &EdgeConfig) -> Routes {
        let mut routes = Routes::default();
        for (index, pool) in config.pools.iter().enumerate() {
            let id = PoolId(u16::try_from(index).expect("a configuration has at most POOLS_MAX pools"));
            routes.names.insert(pool.name.as_str().into(), id);
            for pattern in &pool.origins {
                let prefixes = routes.prefixes_mut(pattern);
                prefixes.0.extend(pool.paths.iter().map(|path| (path.as_str().into(), id)));
                prefixes.0.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
            }
        }
        routes
    }

    fn prefixes_mut(&mut self, pattern: &OriginPattern) -> &mut Prefixes {
        match pattern {
            OriginPattern::Origin(origin) => {
                let origins = &mut self.hosts.entry(origin.host.as_str().into()).or_default().origins;
                let index = origins.iter().position(|(known, _)| known == pattern).unwrap_or_else(|| {
                    origins.push((pattern.clone(), Prefixes::default()));
                    origins.len() - 1
                });
                &mut origins[index].1
            }
            OriginPattern::Host(host) => {
                self.hosts.entry(host.as_str().into()).or_default().bare.get_or_insert_default()
            }
            OriginPattern::Wildcard(wildcard) => self.wildcards.entry(wildcard.as_str().into()).or_default(),
            OriginPattern::Any => self.any.get_or_insert_default(),
        }
    }

    /// The pool of a request: the most exact entry that covers its scheme, host and port (origin, host, longest
    /// wildcard, `*`), then the longest prefix of its path. A path that no pool of that entry takes belongs to
    /// nobody: it never falls through to a less exact entry, whose workers may be somebody else's.
    ///
    /// `scheme` and `host` are in lower case, as `wire` gives them; `path` may have its query.
    #[must_use]
    pub fn route(&self, scheme: &str, host: &str, port: u16, path: &str) -> Option<PoolId> {
        self.find(scheme, host, port, path)?.place.map(|(_, pool)| pool)
    }

    /// As [`Routes::route`], with what decided. `None`: no entry covers the origin.
    #[must_use]
    pub fn find(&self, scheme: &str, host: &str, port: u16, path: &str) -> Option<Found<'_>> {
        let (entry, prefixes) = self.most_exact(scheme, host, port)?;
        Some(Found { entry, place: prefixes.longest(path) })
    }

    /// The pools that a worker with this origin serves: those that a request for it can reach. Empty: no pool has it.
    #[must_use]
    pub fn pools_for(&self, origin: &Origin) -> Vec<PoolId> {
        let mut pools: Vec<PoolId> = match self.most_exact(origin.scheme.as_str(), &origin.host, origin.port) {
            Some((_, prefixes)) => prefixes.0.iter().map(|(_, pool)| *pool).collect(),
            None => Vec::new(),
        };
        pools.sort_unstable();
        pools.dedup();
        pools
    }

    /// A pool by name, with or without the final slash that a setup's target may have.
    #[must_use]
    pub fn pool_named(&self, name: &str) -> Option<PoolId> {
        self.names.get(name.strip_suffix('/').unwrap_or(name)).copied()
    }

    fn most_exact(&self, scheme: &str, host: &str, port: u16) -> Option<(Entry<'_>, &Prefixes)> {
        if let Some((name, entry)) = self.hosts.get_key_value(host) {
            if let Some((origin, prefixes)) = entry.origins.iter().find(|(own, _)| own.matches(scheme, host, port)) {
                return Some((Entry::Origin(origin), prefixes));
            }
            if let Some(prefixes) = &entry.bare {
                return Some((Entry::Host(name), prefixes));
            }
        }
        if !self.wildcards.is_empty() {
            // Each turn takes away one label, so the longest suffix is met first.
            let mut rest = host;
            while let Some((_, parent)) = rest.split_once('.') {
                if let Some((name, prefixes)) = self.wildcards.get_key_value(parent) {
                    return Some((Entry::Wildcard(name), prefixes));
                }
                rest = parent;
            }
        }
        self.any.as_ref().map(|prefixes| (Entry::Any, prefixes))
    }
}

impl Prefixes {
    fn longest(&self, path: &str) -> Option<(&str, PoolId)> {
        let path = path.split('?').next().unwrap_or(path);
        self.0.iter().find(|(prefix, _)| is_prefix(prefix, path)).map(|(prefix, pool)| (&**prefix, *pool))
    }
}

/// `/a` takes `/a` and `/a/x` and not `/ab`; `/a/` takes what is below it and not `/a`.
fn is_prefix(prefix: &str, path: &str) -> bool {
    match path.strip_prefix(prefix) {
        Some(rest) => rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/'),
        None => prefix == "/", // `OPTIONS *` has no path, and belongs to whoever takes everything
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::config::{AdminAccess, Cores, Limits, Pool};

    fn config(pools: &[(&str, &[&str], &[&str])]) -> EdgeConfig {
        let pools = pools.iter().map(|(name, origins, paths)| {
            let mut pool = Pool::new(name, origins.iter().map(|o| OriginPattern::parse(o).unwrap()).collect());
            pool.paths = paths.iter().map(|&path| path.to_owned()).collect();
            pool
        });
        EdgeConfig {
            file: String::new(),
            cores: Cores::All,
            drain_ms_max: 0,
            limits: Limits::default(),
            trusted_proxies: Vec::new(),
            listens: Vec::new(),
            admin: None,
            admin_access: AdminAccess::default(),
            pools: pools.collect(),
            credentials: Vec::new(),
            credentials_dir: None,
            tokens: None,
            access_log: None,
        }
    }

    fn sample() -> EdgeConfig {
        config(&[
            ("app", &["https://app.example.com"], &["/"]),
            ("api", &["https://app.example.com", "api.example.com"], &["/api", "/v2/"]),
            ("host", &["app.example.com"], &["/"]),
            ("wide", &["*.example.com"], &["/"]),
            ("deep", &["*.eu.example.com"], &["/"]),
            ("rest", &["*"], &["/"]),
            ("port", &["http://app.example.com:8080"], &["/only"]),
        ])
    }

    #[track_caller]
    fn check(routes: &Routes, config: &EdgeConfig, request: (&str, &str, u16, &str), want: Option<&str>) {
        let (scheme, host, port, path) = request;
        let got = routes.route(scheme, host, port, path).map(|id| config.pools[usize::from(id.0)].name.as_str());
        assert_eq!(got, want, "{request:?}");
    }

    #[test]
    fn the_most_exact_origin_wins_and_then_the_longest_path() {
        let config = sample();
        let routes = Routes::new(&config);
        for (scheme, host, port, path, want) in [
            ("https", "app.example.com", 443, "/", Some("app")),
            ("https", "app.example.com", 443, "/apis", Some("app")),
            ("https", "app.example.com", 443, "/api", Some("api")),
            ("https", "app.example.com", 443, "/api/", Some("api")),
            ("https", "app.example.com", 443, "/api/x?y=/z", Some("api")),
            ("https", "app.example.com", 443, "/api?x", Some("api")),
            ("https", "app.example.com", 443, "/v2", Some("app")),
            ("https", "app.example.com", 443, "/v2/", Some("api")),
            ("https", "app.example.com", 443, "/v2/x", Some("api")),
            ("https", "app.example.com", 443, "/x?/api", Some("app")),
            ("https", "app.example.com", 443, "/?q", Some("app")),
            ("https", "app.example.com", 443, "*", Some("app")),
            ("http", "app.example.com", 80, "/api", Some("host")),
            ("https", "app.example.com", 8443, "/", Some("host")),
            ("http", "app.example.com", 8080, "/only", Some("port")),
            ("http", "app.example.com", 8080, "/other", None),
            ("http", "api.example.com", 80, "/api/1", Some("api")),
            ("http", "api.example.com", 80, "/", None),
            ("http", "api.example.com", 80, "*", None),
            ("http", "www.example.com", 80, "/api", Some("wide")),
            ("http", "a.b.example.com", 80, "/", Some("wide")),
            ("http", "a.eu.example.com", 80, "/", Some("deep")),
            ("http", "a.b.eu.example.com", 80, "/", Some("deep")),
            ("http", "eu.example.com", 80, "/", Some("wide")),
            ("http", "example.com", 80, "/", Some("rest")),
            ("http", "notexample.com", 80, "/", Some("rest")),
            ("http", "127.0.0.1", 80, "/", Some("rest")),
            ("http", "[::1]", 80, "/", Some("rest")),
            ("http", "", 80, "/", Some("rest")),
        ] {
            check(&routes, &config, (scheme, host, port, path), want);
        }
    }

    #[test]
    fn without_a_star_an_unknown_host_has_no_pool() {
        let config = config(&[("app", &["http://app.example"], &["/"])]);
        let routes = Routes::new(&config);
        check(&routes, &config, ("http", "app.example", 80, "/x"), Some("app"));
        check(&routes, &config, ("http", "other.example", 80, "/"), None);
        check(&routes, &config, ("http", "app.example", 81, "/"), None);
    }

    /// The table against a plain loop over every pattern.
    #[test]
    fn the_table_agrees_with_a_loop_over_all_patterns() {
        let config = sample();
        let routes = Routes::new(&config);
        let hosts = ["app", "app.example.com", "api.example.com", "x.example.com", "x.y.eu.example.com", "com"];
        for host in hosts {
            for (scheme, port) in [("http", 80), ("https", 443), ("http", 8080), ("https", 8443)] {
                for path in ["/", "/api", "/apix", "/api/x", "/v2", "/v2/x", "/only", "/only/x"] {
                    let entries = config.pools.iter().flat_map(|pool| pool.origins.iter().map(move |o| (o, pool)));
                    let entries: Vec<_> = entries.filter(|(o, _)| o.matches(scheme, host, port)).collect();
                    let best = entries.iter().map(|(o, _)| o.exactness()).max();
                    let pools = entries.iter().filter(|(o, _)| Some(o.exactness()) == best).map(|(_, pool)| *pool);
                    let paths = pools.flat_map(|pool| pool.paths.iter().map(move |path| (path, pool)));
                    let want = paths.filter(|(p, _)| is_prefix(p, path)).max_by_key(|(p, _)| p.len());
                    let by = want.map(|(path, _)| path.as_str());
                    let want = want.map(|(_, pool)| pool.name.as_str());
                    check(&routes, &config, (scheme, host, port, path), want);
                    // And it is told by which words.
                    let found = routes.find(scheme, host, port, path).expect("`*` takes everything");
                    let exact = entries.iter().find(|(o, _)| Some(o.exactness()) == best).map(|(o, _)| o.to_string());
                    assert_eq!(Some(found.entry.to_string()), exact);
                    assert_eq!(found.place.map(|(prefix, _)| prefix), by);
                }
            }
        }
    }

    #[test]
    fn a_worker_serves_the_pools_that_a_request_for_its_origin_can_reach() {
        let config = sample();
        let routes = Routes::new(&config);
        for (origin, want) in [
            ("https://app.example.com", &["app", "api"][..]),
            ("http://app.example.com", &["host"]),
            ("http://app.example.com:8080", &["port"]),
            ("https://api.example.com", &["api"]),
            ("https://x.eu.example.com", &["deep"]),
            ("https://elsewhere.example", &["rest"]),
        ] {
            let pools = routes.pools_for(&Origin::parse(origin).unwrap());
            let names: Vec<_> = pools.iter().map(|id| config.pools[usize::from(id.0)].name.as_str()).collect();
            assert_eq!(names, want, "{origin}");
        }
    }

    #[test]
    fn a_pool_is_found_by_name_with_and_without_the_final_slash() {
        let routes = Routes::new(&sample());
        for (name, want) in
            [("app", Some(0)), ("app/", Some(0)), ("rest", Some(5)), ("app//", None), ("", None), ("App", None)]
        {
            assert_eq!(routes.pool_named(name).map(|id| id.0), want, "{name:?}");
        }
    }
}
