//! Hot. How urgent a request is: what a rule of its pool says, else what its client says as far as the pool listens,
//! else the pool's default. What becomes of an urgent request never enters.

use std::net::IpAddr;

use super::config::{Clamp, ClientHeader, FieldWanted, Match, Pool, Rule};
use crate::exchange::Ask;
use crate::limits::{RULES_MAX, URGENCY_MAX};
use crate::wire::priority::client_priority;

/// The rules and the words of one pool. Made once for each pool, and read by every core.
#[derive(Clone, Debug)]
pub struct Classifier {
    rules: Box<[Rule]>,
    client_header: ClientHeader,
    clamp: Clamp,
    default: u8,
}

/// What was decided about a request; both go on to its worker as `Priority`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classified {
    /// 0, the most urgent, to `limits::URGENCY_MAX`.
    pub urgency: u8,
    /// The client's `i` (RFC 9218 §4.2), whatever its urgency counts.
    pub incremental: bool,
    pub by: DecidedBy,
}

/// Whose word a class is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecidedBy {
    /// The rule with this index in its pool.
    Rule(u8),
    /// The client's `Priority`, as it stands.
    Header,
    /// The client's `Priority`, brought into the pool's clamp.
    Clamp,
    Default,
}

impl Classifier {
    /// # Panics
    /// With a class above `limits::URGENCY_MAX` or a clamp that is the wrong way round, which no checked configuration
    /// has.
    #[cold]
    #[must_use]
    pub fn new(pool: &Pool) -> Classifier {
        let priority = pool.priority;
        assert!(priority.clamp.min <= priority.clamp.max && priority.clamp.max <= URGENCY_MAX, "{:?}", priority.clamp);
        assert!(priority.default <= URGENCY_MAX && pool.rules.iter().all(|rule| rule.urgency <= URGENCY_MAX));
        assert!(pool.rules.len() <= RULES_MAX, "their indexes have a byte");
        Classifier {
            rules: pool.rules.clone().into(),
            client_header: priority.client_header,
            clamp: priority.clamp,
            default: priority.default,
        }
    }

    /// `ask` is as its client sent it, so this comes before the edge sets its own `Priority` and forwarding fields.
    /// Allocates nothing, unless there is a `Priority` with strings or bytes in it.
    #[must_use]
    pub fn classify(&self, ask: &Ask, client: Option<IpAddr>) -> Classified {
        let said = client_priority(&ask.headers);
        let (urgency, by) = match (0..).zip(&self.rules).find(|(_, rule)| holds(&rule.when, ask, client)) {
            Some((index, rule)) => (rule.urgency, DecidedBy::Rule(index)),
            None => match (self.client_header, said.urgency) {
                (ClientHeader::Ignore, _) | (_, None) => (self.default, DecidedBy::Default),
                (ClientHeader::Clamp, Some(said)) => match said.clamp(self.clamp.min, self.clamp.max) {
                    urgency if urgency == said => (urgency, DecidedBy::Header),
                    urgency => (urgency, DecidedBy::Clamp),
                },
                (ClientHeader::Trust, Some(urgency)) => (urgency, DecidedBy::Header),
            },
        };
        Classified { urgency, incremental: said.incremental, by }
    }
}

/// The cheapest conditions come first; paths, the longest texts of a client's choice, last.
fn holds(when: &Match, ask: &Ask, client: Option<IpAddr>) -> bool {
    one_of(&when.methods, |method| *method == ask.method)
        && one_of(&when.clients, |network| client.is_some_and(|client| network.contains(client)))
        && one_of(&when.hosts, |host| ask.authority.as_ref().is_some_and(|authority| host.matches(authority.host())))
        && when.headers.iter().all(|(name, wanted)| {
            let mut lines = ask.headers.get_all(name).iter();
            match wanted {
                FieldWanted::Present => lines.next().is_some(),
                FieldWanted::Exactly(wanted) => lines.any(|line| line == wanted),
            }
        })
        && one_of(&when.paths, |path| path.matches(ask.path.path()))
}

/// An empty list is no condition.
fn one_of<T>(list: &[T], holds: impl FnMut(&T) -> bool) -> bool {
    list.is_empty() || list.iter().any(holds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::config::EdgeConfig;
    use crate::exchange::Length;
    use crate::wire::parse_request;
    use bytes::Bytes;
    use http::uri::PathAndQuery;

    /// A pool of every host, with these lines in it.
    fn classifier(lines: &str) -> Classifier {
        let text = format!(
            "[[listen]]\naddress = \"127.0.0.1:1\"\naccept = [\"clients\", \"workers\"]\n\
             [[pool]]\nname = \"app\"\norigins = [\"*\"]\n{lines}\n"
        );
        let parsed = EdgeConfig::parse("edge.toml", &text, 0);
        let (config, _) = parsed.unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}"));
        Classifier::new(&config.pools[0])
    }

    /// A head as it comes from a client: the request line, then fields.
    fn ask(line: &str, fields: &[&str]) -> Ask {
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let head = parse_request(Bytes::from(format!("{line}\r\n{fields}\r\n"))).expect(line);
        Ask {
            method: head.method,
            version: http::Version::HTTP_11,
            secure: false,
            authority: head.authority.map(|authority| authority.to_string().parse().unwrap()),
            path: head.uri.into_parts().path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/")),
            headers: head.headers,
            length: Length::None,
            expects_continue: false,
            upgrade: None,
        }
    }

    const CLIENT: &str = "192.0.2.1";

    #[track_caller]
    fn check(classifier: &Classifier, ask: &Ask, client: &str, want: u8) {
        let classified = classifier.classify(ask, Some(client.parse().unwrap()));
        assert_eq!(classified.urgency, want, "{ask:?} of {client}");
    }

    /// Whether a rule with this `match` takes a request.
    #[track_caller]
    fn check_match(when: &str, line: &str, fields: &[&str], client: &str, want: bool) {
        let classifier = classifier(&format!("[[pool.rule]]\nmatch = {{ {when} }}\nurgency = 0"));
        let ask = ask(line, fields);
        let classified = classifier.classify(&ask, Some(client.parse().unwrap()));
        assert_eq!(classified.urgency == 0, want, "{when} and {line} {fields:?} of {client}");
    }

    #[test]
    fn each_condition_takes_its_requests_and_no_other() {
        let host = "Host: app.example.com";
        for (when, line, fields, want) in [
            // methods
            (r#"method = "POST""#, "POST / HTTP/1.1", &[host][..], true),
            (r#"method = "POST""#, "GET / HTTP/1.1", &[host], false),
            (r#"method = "POST""#, "post / HTTP/1.1", &[host], false),
            (r#"method = ["PUT", "POST"]"#, "POST / HTTP/1.1", &[host], true),
            (r#"method = ["PROPFIND-WITH-A-LONG-NAME"]"#, "PROPFIND-WITH-A-LONG-NAME / HTTP/1.1", &[host], true),
            // paths
            (r#"path = "/a""#, "GET /a HTTP/1.1", &[host], true),
            (r#"path = "/a""#, "GET /a?b=/c HTTP/1.1", &[host], true),
            (r#"path = "/a""#, "GET /a/ HTTP/1.1", &[host], false),
            (r#"path = "/a""#, "GET /A HTTP/1.1", &[host], false),
            (r#"path = "/a""#, "GET /%61 HTTP/1.1", &[host], false),
            (r#"path = "/a/*""#, "GET /a/ HTTP/1.1", &[host], true),
            (r#"path = "/a/*""#, "GET /a HTTP/1.1", &[host], false),
            (r#"path = "/a/*""#, "GET /a/b/c?d HTTP/1.1", &[host], true),
            (r#"path = "/a/*""#, "GET /?/a/b HTTP/1.1", &[host], false),
            (r#"path = "*.css""#, "GET /x/y.css?v=1 HTTP/1.1", &[host], true),
            (r#"path = "*.css""#, "GET /x.cssx HTTP/1.1", &[host], false),
            (r#"path = "*.css""#, "GET /x?y.css HTTP/1.1", &[host], false),
            (r#"path = "*/api/*""#, "GET /api/ HTTP/1.1", &[host], true),
            (r#"path = "*/api/*""#, "GET /v1/api/x HTTP/1.1", &[host], true),
            (r#"path = ["/x", "/y/*"]"#, "GET /y/z HTTP/1.1", &[host], true),
            (r#"path = ["/x", "/y/*"]"#, "GET /y HTTP/1.1", &[host], false),
            (r#"path = "/""#, "GET / HTTP/1.1", &[host], true),
            (r#"path = "/*""#, "GET / HTTP/1.1", &[host], true),
            // the target in its absolute form, and the star of OPTIONS
            (r#"path = "/a/*""#, "GET http://app.example.com/a/b?c HTTP/1.1", &[host], true),
            (r#"path = "*app.example.com*""#, "GET http://app.example.com/a HTTP/1.1", &[host], false),
            (r#"path = "/""#, "GET http://app.example.com HTTP/1.1", &[host], true),
            (r#"path = "/""#, "GET http://app.example.com?/a HTTP/1.1", &[host], true),
            (r#"path = "/*""#, "OPTIONS * HTTP/1.1", &[host], false),
            (r#"path = "/*""#, "OPTIONS http://app.example.com HTTP/1.1", &[host], false),
            (r#"method = "OPTIONS""#, "OPTIONS * HTTP/1.1", &[host], true),
            (r#"path = "*/""#, "OPTIONS * HTTP/1.1", &[host], false),
            // hosts
            (r#"host = "app.example.com""#, "GET / HTTP/1.1", &[host], true),
            (r#"host = "App.Example.COM""#, "GET / HTTP/1.1", &["Host: aPP.example.com:8080"], true),
            (r#"host = "app.example.com""#, "GET http://app.example.com/ HTTP/1.0", &[], true),
            (r#"host = "app.example.com""#, "GET / HTTP/1.0", &[], false),
            (r#"host = "example.com""#, "GET / HTTP/1.1", &[host], false),
            (r#"host = "*.example.com""#, "GET / HTTP/1.1", &["Host: a.B.EXAMPLE.com:1"], true),
            (r#"host = "*.example.com""#, "GET / HTTP/1.1", &["Host: example.com"], false),
            (r#"host = "*.example.com""#, "GET / HTTP/1.1", &["Host: an-example.com"], false),
            (r#"host = "*.example.com""#, "GET / HTTP/1.1", &["Host: com"], false),
            (r#"host = ["a.example", "*.example.com"]"#, "GET / HTTP/1.1", &["Host: a.example"], true),
            (r#"host = "[::1]""#, "GET / HTTP/1.1", &["Host: [::1]:8080"], true),
            // fields
            (r#"header = { x-plan = "gold" }"#, "GET / HTTP/1.1", &[host, "X-Plan: gold"], true),
            (r#"header = { X-PLAN = "gold" }"#, "GET / HTTP/1.1", &[host, "x-plan:  gold  "], true),
            (r#"header = { x-plan = "gold" }"#, "GET / HTTP/1.1", &[host, "X-Plan: Gold"], false),
            (r#"header = { x-plan = "gold" }"#, "GET / HTTP/1.1", &[host, "X-Plan: golden"], false),
            (r#"header = { x-plan = "gold" }"#, "GET / HTTP/1.1", &[host, "X-Plan: red, gold"], false),
            (r#"header = { x-plan = "gold" }"#, "GET / HTTP/1.1", &[host, "X-Plan: red", "x-plan: gold"], true),
            (r#"header = { x-plan = "gold" }"#, "GET / HTTP/1.1", &[host], false),
            (r#"header = { x-plan = "" }"#, "GET / HTTP/1.1", &[host, "X-Plan:"], true),
            (r#"header = { x-plan = "" }"#, "GET / HTTP/1.1", &[host], false),
            (r#"header = { x-plan = "*" }"#, "GET / HTTP/1.1", &[host, "X-Plan:"], true),
            (r#"header = { x-plan = "*" }"#, "GET / HTTP/1.1", &[host, "X-Plan: anything"], true),
            (r#"header = { x-plan = "*" }"#, "GET / HTTP/1.1", &[host], false),
            (r#"header = { x-plan = "gold*" }"#, "GET / HTTP/1.1", &[host, "X-Plan: golden"], false),
            (r#"header = { a = "1", b = "2" }"#, "GET / HTTP/1.1", &[host, "a: 1", "b: 2"], true),
            (r#"header = { a = "1", b = "2" }"#, "GET / HTTP/1.1", &[host, "a: 1"], false),
            (r#"header = { priority = "u=0" }"#, "GET / HTTP/1.1", &[host, "Priority: u=0"], true),
        ] {
            check_match(when, line, fields, CLIENT, want);
        }
    }

    #[test]
    fn a_client_is_known_by_its_address() {
        for (when, client, want) in [
            (r#"client = "192.0.2.1""#, "192.0.2.1", true),
            (r#"client = "192.0.2.1""#, "192.0.2.2", false),
            (r#"client = "192.0.2.0/24""#, "192.0.2.255", true),
            (r#"client = "192.0.2.0/24""#, "192.0.3.0", false),
            (r#"client = "0.0.0.0/0""#, "255.255.255.255", true),
            (r#"client = "0.0.0.0/0""#, "::1", false),
            (r#"client = ["10.0.0.0/8", "::1"]"#, "10.255.0.1", true),
            (r#"client = ["10.0.0.0/8", "::1"]"#, "::1", true),
            (r#"client = ["10.0.0.0/8", "::1"]"#, "::2", false),
            (r#"client = "2001:db8::/33""#, "2001:db8:7fff:ffff::1", true),
            (r#"client = "2001:db8::/33""#, "2001:db8:8000::1", false),
            // a socket for both kinds shows an IPv4 client so
            (r#"client = "10.0.0.0/8""#, "::ffff:10.1.2.3", true),
            (r#"client = "10.0.0.0/8""#, "::ffff:11.1.2.3", false),
            (r#"client = "::ffff:10.0.0.0/104""#, "10.1.2.3", true),
            (r#"client = "::ffff:10.0.0.0/104""#, "::ffff:10.1.2.3", true),
            (r#"client = "::ffff:192.0.2.1""#, "192.0.2.1", true),
            (r#"client = "::/0""#, "::ffff:10.1.2.3", false),
            (r#"client = "::/0""#, "2001:db8::1", true),
        ] {
            check_match(when, "GET / HTTP/1.1", &["Host: a.example"], client, want);
        }
    }

    /// Every subset of the five conditions against a request that meets all of them, and against five that miss one each.
    #[test]
    fn all_conditions_of_a_rule_must_hold() {
        let conditions = [
            r#"method = ["PUT", "POST"]"#,
            r#"host = "*.example.com""#,
            r#"path = ["/checkout/*", "/pay"]"#,
            r#"client = ["10.0.0.0/8", "::1"]"#,
            r#"header = { x-plan = "gold", x-user = "*" }"#,
        ];
        let requests = [
            ("POST /checkout/1 HTTP/1.1", "a.example.com", "gold", "10.0.0.1"),
            ("GET /checkout/1 HTTP/1.1", "a.example.com", "gold", "10.0.0.1"),
            ("POST /checkout/1 HTTP/1.1", "example.com", "gold", "10.0.0.1"),
            ("POST /checkout HTTP/1.1", "a.example.com", "gold", "10.0.0.1"),
            ("POST /checkout/1 HTTP/1.1", "a.example.com", "gold", "11.0.0.1"),
            ("POST /checkout/1 HTTP/1.1", "a.example.com", "red", "10.0.0.1"),
        ];
        for subset in 1..1_usize << conditions.len() {
            let chosen = conditions.iter().enumerate().filter(|(index, _)| subset >> index & 1 == 1);
            let when = chosen.map(|(_, condition)| *condition).collect::<Vec<_>>().join(", ");
            for (index, (line, host, plan, client)) in requests.iter().enumerate() {
                let misses = index.checked_sub(1).is_some_and(|missed| subset >> missed & 1 == 1);
                let fields = [&*format!("Host: {host}"), &*format!("X-Plan: {plan}"), "X-User: 7"];
                check_match(&when, line, &fields, client, !misses);
            }
        }
    }

    #[test]
    fn the_first_rule_that_takes_a_request_decides() {
        let rules = classifier(
            "[pool.priority]\nclient_header = \"trust\"\ndefault = 4\n\
             [[pool.rule]]\nmatch = { path = \"/a/b/*\", method = \"POST\" }\nurgency = 0\n\
             [[pool.rule]]\nmatch = { path = \"/a/*\" }\nurgency = 6\n\
             [[pool.rule]]\nmatch = { path = \"/a/b/*\" }\nurgency = 1\n\
             [[pool.rule]]\nmatch = { path = \"*.css\" }\nurgency = 7\n\
             [[pool.rule]]\nmatch = { method = \"POST\" }\nurgency = 2",
        );
        for (line, want) in [
            ("POST /a/b/c HTTP/1.1", 0),
            ("GET /a/b/c HTTP/1.1", 6),
            ("GET /a/b.css HTTP/1.1", 6),
            ("POST /b.css HTTP/1.1", 7),
            ("POST /b HTTP/1.1", 2),
            ("GET /b HTTP/1.1", 4),
        ] {
            check(&rules, &ask(line, &["Host: a.example"]), CLIENT, want);
        }
        // A rule comes before the client's own word, which counts where there is no rule.
        for (line, want) in [("GET /a/ HTTP/1.1", 6), ("GET / HTTP/1.1", 5)] {
            check(&rules, &ask(line, &["Host: a.example", "Priority: u=5"]), CLIENT, want);
        }
    }

    #[test]
    fn a_client_is_heard_as_far_as_the_pool_listens() {
        let ignore = classifier("[pool.priority]\nclient_header = \"ignore\"\ndefault = 5");
        let clamp = classifier("[pool.priority]\nclient_header = \"clamp\"\nclamp = [2, 6]\ndefault = 5");
        let trust = classifier("[pool.priority]\nclient_header = \"trust\"\ndefault = 5");
        let unset = classifier("");
        for (priority, ignored, clamped, trusted) in [
            (&[][..], 5, 5, 5),
            (&["Priority: u=0"], 5, 2, 0),
            (&["Priority: u=2"], 5, 2, 2),
            (&["Priority: u=4, i"], 5, 4, 4),
            (&["Priority: u=7"], 5, 6, 7),
            (&["Priority: i"], 5, 5, 5),
            (&["Priority: u=8"], 5, 5, 5),
            (&["Priority: u=-1"], 5, 5, 5),
            (&["Priority: u=0,"], 5, 5, 5),
            (&["Priority: \u{fc}=0"], 5, 5, 5),
            (&["Priority: u=0", "Priority: u=3"], 5, 3, 3),
        ] {
            let ask = ask("GET / HTTP/1.1", &[&["Host: a.example"], priority].concat());
            check(&ignore, &ask, CLIENT, ignored);
            check(&clamp, &ask, CLIENT, clamped);
            check(&trust, &ask, CLIENT, trusted);
            check(&unset, &ask, CLIENT, 3);
        }
    }

    #[test]
    fn it_is_told_whose_word_a_class_is() {
        let rules = "[[pool.rule]]\nmatch = { method = \"PUT\" }\nurgency = 3\n\
                     [[pool.rule]]\nmatch = { method = \"POST\" }\nurgency = 3";
        let by = |lines: &str, line: &str, priority: &str| {
            let ask = ask(line, &["Host: a.example", priority]);
            classifier(&format!("{lines}\n{rules}")).classify(&ask, None).by
        };
        let clamp = "[pool.priority]\nclient_header = \"clamp\"\nclamp = [2, 6]";
        let trust = "[pool.priority]\nclient_header = \"trust\"";
        assert_eq!(by(clamp, "PUT / HTTP/1.1", "Priority: u=3"), DecidedBy::Rule(0));
        assert_eq!(by(clamp, "POST / HTTP/1.1", "Priority: u=3"), DecidedBy::Rule(1));
        assert_eq!(by(clamp, "GET / HTTP/1.1", "Priority: u=3"), DecidedBy::Header);
        assert_eq!(by(clamp, "GET / HTTP/1.1", "Priority: u=0"), DecidedBy::Clamp);
        assert_eq!(by(trust, "GET / HTTP/1.1", "Priority: u=0"), DecidedBy::Header);
        assert_eq!(by(trust, "GET / HTTP/1.1", "Priority: i"), DecidedBy::Default);
        assert_eq!(by("", "GET / HTTP/1.1", "Priority: u=0"), DecidedBy::Default);
    }

    #[test]
    fn a_rule_and_the_default_are_never_clamped() {
        let rule = "[[pool.rule]]\nmatch = { method = \"POST\" }\nurgency = 0";
        let clamp =
            classifier(&format!("[pool.priority]\nclient_header = \"clamp\"\nclamp = [2, 2]\ndefault = 2\n{rule}"));
        check(&clamp, &ask("POST / HTTP/1.1", &["Host: a.example", "Priority: u=7"]), CLIENT, 0);
        // Here the clamp is for ageing.
        let ages = classifier("[pool.priority]\nclamp = [2, 3]\nage_step = \"5s\"\ndefault = 7");
        check(&ages, &ask("GET / HTTP/1.1", &["Host: a.example", "Priority: u=0"]), CLIENT, 7);
    }

    #[test]
    fn the_clients_i_is_kept_whatever_decides_the_class() {
        let rule = "[[pool.rule]]\nmatch = { method = \"POST\" }\nurgency = 0";
        for lines in [rule, "", "[pool.priority]\nclient_header = \"trust\""] {
            let classifier = classifier(lines);
            for (priority, want) in [("u=1, i", true), ("i=?1", true), ("u=1", false), ("i=?0", false), ("i,", false)] {
                let ask = ask("POST / HTTP/1.1", &["Host: a.example", &format!("Priority: {priority}")]);
                let classified = classifier.classify(&ask, Some(CLIENT.parse().unwrap()));
                assert_eq!(classified.incremental, want, "{lines} {priority}");
            }
        }
    }
}
