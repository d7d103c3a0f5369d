//! Names to addresses: all of them, and for how long; and the file with a worker's secret. Runs on a small thread of its own,
//! because a resolver needs a runtime that is not ours, and getaddrinfo, or a slow file, would block the core.

use std::net::IpAddr;
use std::time::Instant;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::ResolverConfig;
use hickory_resolver::name_server::TokioConnectionProvider;
use tokio::sync::mpsc;

use super::config::{Secret, SecretFile};
use crate::io;
use crate::limits::RESOLVE_MS_MAX;
use crate::xcore::{HomeWakers, PipeTx, pipe};

/// What a name stands for.
#[derive(Clone, Debug)]
pub struct Found {
    pub addresses: Vec<IpAddr>,
    /// How long this holds; `None` for an address, which is its own name.
    pub ttl_ms: Option<u64>,
}

enum Question {
    Name { name: String, answer: PipeTx<Result<Found, String>> },
    Secret { file: SecretFile, answer: PipeTx<Result<Secret, String>> },
}

/// Asks the resolver's thread. Cheap to clone; stays on its core.
#[derive(Clone)]
pub struct Resolver {
    questions: mpsc::UnboundedSender<Question>,
    wakers: HomeWakers,
}

impl Resolver {
    /// Starts the thread. It ends with the last clone of this.
    pub fn start(wakers: HomeWakers) -> Result<Resolver, String> {
        let (questions, asked) = mpsc::unbounded_channel();
        std::thread::Builder::new()
            .name("resolver".into())
            .spawn(move || answer_all(asked))
            .map_err(|error| format!("a thread could not be started: {error}; see ulimit -u"))?;
        Ok(Resolver { questions, wakers })
    }

    /// All addresses of `name`, in the resolver's order.
    pub async fn lookup(&self, name: &str) -> Result<Found, String> {
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        if let Ok(address) = bare.parse() {
            return Ok(Found { addresses: vec![address], ttl_ms: None });
        }
        let name = name.to_owned();
        self.ask(|answer| Question::Name { name, answer }, "no name server answered in time").await
    }

    /// What is in the file now.
    pub async fn read(&self, file: &SecretFile) -> Result<Secret, String> {
        let file = file.clone();
        self.ask(|answer| Question::Secret { file, answer }, "the file could not be read in time").await
    }

    async fn ask<T: Send>(
        &self,
        question: impl FnOnce(PipeTx<Result<T, String>>) -> Question,
        too_late: &str,
    ) -> Result<T, String> {
        let (answer, mut answered) = pipe(1);
        self.questions.send(question(answer)).map_err(|_| "the resolver's thread has ended")?;
        let answered = std::future::poll_fn(|cx| answered.poll_recv(cx, &self.wakers));
        match io::timeout(RESOLVE_MS_MAX, answered).await {
            Some(Some(answer)) => answer,
            Some(None) => Err("the resolver's thread has ended".into()),
            None => Err(too_late.into()),
        }
    }
}

fn answer_all(mut asked: mpsc::UnboundedReceiver<Question>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "names cannot be resolved"),
    };
    runtime.block_on(async move {
        let resolver = match TokioResolver::builder_tokio() {
            Ok(builder) => builder.build(),
            Err(error) => {
                // No name servers configured: /etc/hosts still answers.
                tracing::warn!(%error, "/etc/resolv.conf cannot be read; only /etc/hosts is used");
                let nobody = ResolverConfig::from_parts(None, vec![], vec![]);
                TokioResolver::builder_with_config(nobody, TokioConnectionProvider::default()).build()
            }
        };
        // Whoever asked may have left when there is an answer.
        while let Some(question) = asked.recv().await {
            match question {
                Question::Name { name, mut answer } => {
                    let resolver = resolver.clone();
                    tokio::spawn(async move {
                        let found = resolve(&resolver, &name).await;
                        let _ = answer.try_send(found);
                    });
                }
                Question::Secret { file, mut answer } => {
                    tokio::task::spawn_blocking(move || drop(answer.try_send(file.read())));
                }
            }
        }
    });
}

#[allow(clippy::disallowed_methods)] // the resolver counts its TTLs in its own runtime's time
async fn resolve(resolver: &TokioResolver, name: &str) -> Result<Found, String> {
    let found = resolver.lookup_ip(name).await.map_err(|error| error.to_string())?;
    let ttl = found.valid_until().saturating_duration_since(Instant::now());
    let mut addresses: Vec<IpAddr> = found.iter().collect();
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        return Err(format!("{name} has no address"));
    }
    Ok(Found { addresses, ttl_ms: Some(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)) })
}
