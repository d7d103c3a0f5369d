//! The credentials that are good now: those of the configuration, and those of the files beside it, which are looked at again
//! and again. What becomes of a link whose credential is gone is its core's to decide.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, mpsc};
use std::time::Duration;

use super::config::{Credential, EdgeConfig, Proof, TokenRules};
use super::credentials::{Credentials, SeatBook};
use super::tokens::{Denied, Tokens};
use crate::limits::{
    CREDENTIAL_FILE_BYTES_MAX, CREDENTIALS_LOOK_MS, CREDENTIALS_MAX, DENIED_FILE_BYTES_MAX, DENIED_LOST_S,
    DENIED_MISSED_S, FILE_FRESH_S, JWKS_BYTES_MAX, TOKENS_DENIED_HELD_MAX,
};
use crate::settings::{At, Mistakes, Place, io_reason, plain, read_bounded};

/// Asked by setups and by whoever withdraws something, never by a request.
pub struct Register {
    now: RwLock<Arc<Credentials>>,
    desk: Mutex<Desk>,
}

/// What only those who look at files need.
#[derive(Default)]
struct Desk {
    folder: Folder,
    key_file: KeyFile,
    deny_file: DenyFile,
    /// What the credentials that are good now were made of.
    list: Vec<Credential>,
    seats: Arc<SeatBook>,
    /// Cores that have not been told of the last change, because their boxes were full.
    owed: Vec<usize>,
}

impl Register {
    /// Reads all files. One of `credentials_dir` that is wrong is told in the log, and its credential is not there.
    ///
    /// # Errors
    /// When the folder cannot be read, or the keys of tokens cannot.
    pub fn open(config: &EdgeConfig, now_unix: u64) -> Result<Register, Mistakes> {
        Register::at(Desk::default(), config, now_unix)
    }

    /// As [`Register::open`], for the next configuration of the same process: what was good last in a file that is wrong now
    /// stays good, and the links that are up count on, over both.
    ///
    /// # Errors
    /// As [`Register::open`].
    pub fn follow(&self, config: &EdgeConfig, now_unix: u64) -> Result<Register, Mistakes> {
        let desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner).next(config);
        Register::at(desk, config, now_unix)
    }

    fn at(mut desk: Desk, config: &EdgeConfig, now_unix: u64) -> Result<Register, Mistakes> {
        if let Err(why) = desk.folder.read(config, now_unix) {
            return Err(unreadable(config, &why));
        }
        desk.list = desk.folder.compose(config);
        desk.folder.tell();
        desk.key_file.read(config, now_unix);
        desk.key_file.file.tell();
        if let (None, Some(mistakes)) = (&desk.key_file.good, desk.key_file.file.mistakes.take()) {
            return Err(mistakes);
        }
        // Without it everybody would be let in who is kept out.
        desk.deny_file.read(config, now_unix);
        desk.deny_file.file.tell();
        if let (None, Some(mistakes)) = (&desk.deny_file.good, desk.deny_file.file.mistakes.take()) {
            return Err(mistakes);
        }
        let now = RwLock::new(Arc::new(desk.credentials()));
        Ok(Register { now, desk: Mutex::new(desk) })
    }

    /// The credentials that are good now.
    #[must_use]
    pub fn now(&self) -> Arc<Credentials> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the files again, and tells each of so many cores if something has changed, here or with those who vouch for
    /// certificates (`others_vouch`). `tell` says whether a core heard it; one that did not is told by a later look. What is
    /// wrong with a file goes to the log, once, and its last good content stays; so does everything while the folder cannot
    /// be read.
    pub fn look(
        &self,
        config: &EdgeConfig,
        now_unix: u64,
        others_vouch: bool,
        cores: usize,
        mut tell: impl FnMut(usize) -> bool,
    ) {
        let desk = &mut *self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_news = false;
        match desk.folder.read(config, now_unix) {
            Err(why) => desk.folder.complain(why),
            Ok(false) => {}
            Ok(true) => {
                let list = desk.folder.compose(config);
                desk.folder.tell();
                is_news |= list != desk.list;
                desk.list = list;
            }
        }
        is_news |= desk.key_file.read(config, now_unix);
        desk.key_file.file.tell();
        is_news |= desk.deny_file.read(config, now_unix);
        desk.deny_file.file.tell();
        if is_news {
            let fresh = Arc::new(desk.credentials());
            *self.now.write().unwrap_or_else(PoisonError::into_inner) = fresh;
            let (keys, denied) = (&desk.key_file.good, desk.deny_file.good.as_ref().map(|denied| denied.len()));
            tracing::info!(credentials = desk.list.len(), ?keys, denied, "the credentials have changed");
        }
        if others_vouch {
            tracing::info!("the authorities of workers' certificates have changed");
        }
        if is_news || others_vouch {
            desk.owed = (0..cores).collect();
        }
        desk.owed.retain(|core| !tell(*core));
    }

    /// Looks at the files as often as that is due, until nobody sends on the other end of `cores` any more. A thread of its own:
    /// files can be slow.
    pub fn watch(cores: mpsc::Receiver<()>, look: impl Fn() + Send + 'static) -> Result<(), String> {
        let every = Duration::from_millis(CREDENTIALS_LOOK_MS);
        let watch = move || {
            while cores.recv_timeout(every) == Err(mpsc::RecvTimeoutError::Timeout) {
                look();
            }
        };
        let thread = std::thread::Builder::new().name("credentials".into()).spawn(watch);
        thread.map(drop).map_err(|error| format!("a thread could not be started: {error}; see ulimit -u"))
    }
}

/// What is wrong with the files beside a configuration, file by file; warnings among it.
#[must_use]
pub fn mistakes(config: &EdgeConfig, now_unix: u64) -> Vec<Mistakes> {
    let mut desk = Desk::default();
    desk.key_file.read(config, now_unix);
    desk.deny_file.read(config, now_unix);
    let mut all: Vec<Mistakes> =
        [desk.key_file.file, desk.deny_file.file].into_iter().flat_map(|f| f.mistakes).collect();
    match desk.folder.read(config, now_unix) {
        Err(why) => all.push(unreadable(config, &why)),
        Ok(_) => {
            desk.folder.compose(config);
            all.extend(desk.folder.files.into_values().flat_map(|file| file.mistakes));
        }
    }
    all
}

fn unreadable(config: &EdgeConfig, why: &str) -> Mistakes {
    let mut mistakes = Mistakes::new(&config.file);
    let place = config.credentials_dir.as_ref().map_or(Place::File, |path| path.place);
    mistakes.error(place, why, "name a folder that this user may read");
    mistakes
}

impl Desk {
    /// With what stays for another configuration. All is read again: its pools may be others.
    fn next(&self, config: &EdgeConfig) -> Desk {
        let mut next = Desk { seats: self.seats.clone(), ..Desk::default() };
        let folder = |path: &Option<At<PathBuf>>| path.as_ref().map(|path| path.value.clone());
        if self.folder.path == folder(&config.credentials_dir) {
            next.folder.files = self.folder.files.iter().map(|(name, file)| (name.clone(), file.next())).collect();
        }
        let are_same = |own: &TokenRules, other: &TokenRules| {
            (&own.jwks_file.value, &own.issuer, &own.audience, own.lifetime_ms_max)
                == (&other.jwks_file.value, &other.issuer, &other.audience, other.lifetime_ms_max)
        };
        if let (Some(own), Some(other)) = (&self.key_file.rules, &config.tokens)
            && are_same(own, other)
        {
            next.key_file.good = self.key_file.good.clone();
        }
        let denied = config.tokens.as_ref().and_then(|rules| rules.denied_file.as_ref());
        if self.deny_file.path == folder(&denied.cloned()) {
            next.deny_file.good = self.deny_file.good.clone();
        }
        next
    }

    fn credentials(&self) -> Credentials {
        let denied = self.deny_file.good.clone().unwrap_or_default();
        Credentials::new(&self.list, self.key_file.good.clone(), denied, self.seats.clone())
    }
}

/// `credentials_dir`, as far as it was read. Without one it stays empty.
#[derive(Default)]
struct Folder {
    /// Where it is; `None`: there is none, or it was not read yet.
    path: Option<PathBuf>,
    /// By name, and so in an order that does not depend on the file system.
    files: BTreeMap<String, File>,
    /// Why it could not be read, as it was told last.
    told: Option<String>,
}

/// One file.
struct File {
    stamp: Stamp,
    /// What is in it; `None`: nothing that can be used.
    content: Option<Credential>,
    /// What counted last.
    good: Option<Credential>,
    mistakes: Option<Mistakes>,
    /// `mistakes`, as they were told last.
    told: String,
}

/// What tells that a file has changed.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    /// It was changed so shortly before it was read that the next change may look the same.
    is_fresh: bool,
}

impl Stamp {
    fn of(file: &Metadata, now_unix: u64) -> Stamp {
        let now = i64::try_from(now_unix).unwrap_or(i64::MAX);
        Stamp {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
            is_fresh: file.mtime().max(file.ctime()).saturating_add(FILE_FRESH_S) >= now,
        }
    }
}

/// A file that is looked at again and again, as far as it was read.
#[derive(Default)]
struct Watched {
    stamp: Option<Stamp>,
    bytes: Vec<u8>,
    mistakes: Option<Mistakes>,
    told: String,
}

impl Watched {
    /// Reads it if it has changed. What `parse` makes of it is news; `None`: there is none, or it is wrong.
    fn read<T>(
        &mut self,
        path: &Path,
        bytes_max: usize,
        now_unix: u64,
        mend: &str,
        parse: impl FnOnce(&[u8]) -> Result<(T, Mistakes), Mistakes>,
    ) -> Option<T> {
        let read = std::fs::metadata(path).map_err(|error| format!("cannot be read: {}", io_reason(&error)));
        let read = read.and_then(|found| {
            let stamp = Stamp::of(&found, now_unix);
            let is_known = self.stamp == Some(stamp) && !stamp.is_fresh;
            if is_known { Ok((stamp, None)) } else { Ok((stamp, Some(content(path, &found, bytes_max)?))) }
        });
        let (stamp, bytes) = match read {
            Ok((_, None)) => return None,
            Ok((stamp, Some(bytes))) => (stamp, bytes),
            Err(why) => {
                let mut mistakes = Mistakes::new(&shown(path));
                mistakes.error(Place::File, why, mend);
                (self.stamp, self.mistakes) = (None, Some(mistakes));
                return None;
            }
        };
        if self.stamp.replace(stamp).is_some() && self.bytes == bytes {
            return None;
        }
        let parsed = parse(&bytes);
        self.bytes = bytes;
        let (parsed, mistakes) = match parsed {
            Ok((parsed, warnings)) => (Some(parsed), warnings),
            Err(mistakes) => (None, mistakes),
        };
        self.mistakes = Some(mistakes);
        parsed
    }

    fn tell(&mut self) {
        tell(self.mistakes.as_ref(), &mut self.told);
    }
}

/// The keys of tokens. Without `tokens` it stays empty.
#[derive(Default)]
struct KeyFile {
    rules: Option<TokenRules>,
    file: Watched,
    good: Option<Arc<Tokens>>,
}

impl KeyFile {
    /// Reads it if it has changed. True: other keys are good now.
    fn read(&mut self, config: &EdgeConfig, now_unix: u64) -> bool {
        let Some(rules) = &config.tokens else { return false };
        self.rules.get_or_insert_with(|| rules.clone());
        let path = &rules.jwks_file.value;
        let parse = |text: &[u8]| Tokens::parse(rules, &shown(path), text);
        let mend = "name a JWKS file that this user may read";
        let fresh = self.file.read(path, JWKS_BYTES_MAX, now_unix, mend, parse);
        let is_news = fresh.is_some();
        self.good = fresh.map(Arc::new).or(self.good.take());
        is_news
    }
}

/// Whose tokens are denied. Without `denied_file` it stays empty.
///
/// Who writes it in place empties it first, and a look in between must let nobody in. So a name is denied as soon as it is read, and
/// until the file has been without it for a while and has not changed meanwhile.
#[derive(Default)]
struct DenyFile {
    /// `None`: there is none, or it was not read yet.
    path: Option<PathBuf>,
    file: Watched,
    good: Option<Arc<Denied>>,
    /// What the last look has found, if names were missing there that are in `good`.
    shorter: Option<Shorter>,
}

struct Shorter {
    denied: Arc<Denied>,
    /// From this second on it counts, if it is still what stands in the file.
    from_unix: u64,
}

impl Shorter {
    /// Found first at `now_unix`, where `good` counts.
    fn than(good: &Denied, found: Denied, now_unix: u64) -> Shorter {
        let has_lost_most = good.shared_with(&found) * 2 < good.len();
        let after_s = if has_lost_most { DENIED_LOST_S } else { DENIED_MISSED_S };
        Shorter { denied: Arc::new(found), from_unix: now_unix.saturating_add(after_s) }
    }
}

impl DenyFile {
    /// Looks at it, and reads it if it has changed. True: others are denied now.
    fn read(&mut self, config: &EdgeConfig, now_unix: u64) -> bool {
        let Some(path) = config.tokens.as_ref().and_then(|rules| rules.denied_file.as_ref()) else { return false };
        let path = self.path.get_or_insert_with(|| path.value.clone());
        let parse = |text: &[u8]| Ok((Denied::parse(&shown(path), text)?, Mistakes::new("")));
        let mend = "name a file that this user may read; it may be empty";
        let fresh = self.file.read(path, DENIED_FILE_BYTES_MAX, now_unix, mend, parse);
        let is_readable = self.file.mistakes.as_ref().is_none_or(|mistakes| !mistakes.has_errors());
        let shorter = self.shorter.take().filter(|_| is_readable);
        let now = match (fresh, &self.good) {
            // Found once more as it was.
            (None, _) => match shorter {
                Some(shorter) if now_unix >= shorter.from_unix => Some(shorter.denied),
                shorter => {
                    self.shorter = shorter;
                    None
                }
            },
            (Some(fresh), Some(good)) if !fresh.has_all(good) => {
                let all = good.with(&fresh);
                if all.len() > TOKENS_DENIED_HELD_MAX {
                    Some(Arc::new(fresh))
                } else {
                    self.shorter = Some(Shorter::than(good, fresh, now_unix));
                    (all.len() > good.len()).then(|| Arc::new(all))
                }
            }
            (Some(fresh), _) => Some(Arc::new(fresh)),
        };
        let is_news = now.is_some();
        self.good = now.or(self.good.take());
        is_news
    }
}

/// What is wrong goes to the log, unless it stands there already.
fn tell(mistakes: Option<&Mistakes>, told: &mut String) {
    let Some(mistakes) = mistakes else { return told.clear() };
    let now = mistakes.to_string();
    if *told == now {
        return;
    }
    for line in mistakes.lines() {
        match mistakes.has_errors() {
            true => tracing::error!("{line}; what was good in it last stays"),
            false => tracing::warn!("{line}"),
        }
    }
    *told = now;
}

impl Folder {
    /// Reads what has changed. True: something has.
    ///
    /// # Errors
    /// When the folder cannot be read; then nothing is taken for gone.
    fn read(&mut self, config: &EdgeConfig, now_unix: u64) -> Result<bool, String> {
        let Some(At { value: folder, .. }) = &config.credentials_dir else { return Ok(false) };
        let names = names(folder)?;
        (self.path, self.told) = (Some(folder.clone()), None);
        let before = self.files.len();
        self.files.retain(|name, _| names.binary_search(name).is_ok());
        let mut has_changed = self.files.len() < before;
        for name in names {
            let path = folder.join(&name);
            // Links are followed, those above the file, too: what Kubernetes flips is one of them.
            let found = match std::fs::metadata(&path) {
                Ok(found) => found,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    has_changed |= self.files.remove(&name).is_some();
                    continue;
                }
                Err(error) => {
                    has_changed |= self.bad(name, &path, None, &format!("cannot be read: {}", io_reason(&error)));
                    continue;
                }
            };
            let stamp = Stamp::of(&found, now_unix);
            if self.files.get(&name).is_some_and(|file| file.stamp == stamp && !stamp.is_fresh) {
                continue;
            }
            has_changed = true;
            match text(&path, &found) {
                Ok(text) => self.take(name, stamp, config.parse_credential(&shown(&path), &text, now_unix)),
                Err(why) => drop(self.bad(name, &path, Some(stamp), &why)),
            }
        }
        Ok(has_changed)
    }

    fn take(&mut self, name: String, stamp: Stamp, read: Result<(Credential, Mistakes), Mistakes>) {
        let file = self.files.entry(name).or_insert_with(|| File::new(stamp));
        file.stamp = stamp;
        (file.content, file.mistakes) = match read {
            Ok((credential, warnings)) => (Some(credential), Some(warnings)),
            Err(mistakes) => (None, Some(mistakes)),
        };
    }

    /// True: that is news.
    fn bad(&mut self, name: String, path: &Path, stamp: Option<Stamp>, why: &str) -> bool {
        let mut mistakes = Mistakes::new(&shown(path));
        mistakes.error(Place::File, why, "mend it, or remove it");
        let never = Stamp { device: 0, inode: 0, bytes: 0, modified: (0, 0), changed: (0, 0), is_fresh: true };
        let stamp = stamp.unwrap_or(never);
        let is_news = self.files.get(&name).is_none_or(|file| file.mistakes.as_ref() != Some(&mistakes));
        self.take(name, stamp, Err(mistakes));
        is_news
    }

    /// All credentials: those of the configuration, and of each file what is in it, or what was good last. An id, a secret or a
    /// name belongs to the first who has it.
    fn compose(&mut self, config: &EdgeConfig) -> Vec<Credential> {
        let mut all = config.credentials.clone();
        for (name, file) in &mut self.files {
            let path = config.credentials_dir.as_ref().map_or(Path::new(""), |path| &path.value).join(name);
            if let Some(content) = file.content.take() {
                match collision(&all, &content) {
                    None => {
                        // What was told of a collision is over.
                        file.mistakes = file.mistakes.take().filter(|mistakes| !mistakes.has_errors());
                        file.good = Some(content.clone());
                        file.content = Some(content.clone());
                        all.push(content);
                        continue;
                    }
                    Some(why) => {
                        let mut mistakes = Mistakes::new(&shown(&path));
                        mistakes.error(Place::File, why, "give each credential its own");
                        file.mistakes = Some(mistakes);
                        file.content = Some(content); // it may be right once the other one is gone
                    }
                }
            }
            file.good = file.good.take().filter(|good| collision(&all, good).is_none());
            all.extend(file.good.clone());
        }
        all
    }

    /// What is wrong with the files goes to the log, unless it stands there already.
    fn tell(&mut self) {
        for file in self.files.values_mut() {
            tell(file.mistakes.as_ref(), &mut file.told);
        }
    }

    fn complain(&mut self, why: String) {
        if self.told.as_ref() != Some(&why) {
            tracing::error!("credentials_dir: {why}; the credentials stay as they were");
            self.told = Some(why);
        }
    }
}

impl File {
    fn new(stamp: Stamp) -> File {
        File { stamp, content: None, good: None, mistakes: None, told: String::new() }
    }

    /// Not read yet, but for what was good in it.
    fn next(&self) -> File {
        File { good: self.good.clone(), ..File::new(Stamp { is_fresh: true, ..self.stamp }) }
    }
}

/// Why `one` cannot stand beside `all`.
fn collision(all: &[Credential], one: &Credential) -> Option<String> {
    if all.len() >= CREDENTIALS_MAX {
        return Some(format!("an edge has at most {CREDENTIALS_MAX} credentials"));
    }
    for other in all {
        if other.id == one.id {
            return Some(format!("credential `{}` is there already", one.id));
        }
        let is_shared = match (&other.proof, &one.proof) {
            (Proof::Secrets(theirs), Proof::Secrets(own)) => own.iter().any(|hash| theirs.contains(hash)),
            (theirs @ Proof::Certificate { .. }, own @ Proof::Certificate { .. }) => own == theirs,
            (Proof::Secrets(_), Proof::Certificate { .. }) | (Proof::Certificate { .. }, Proof::Secrets(_)) => false,
        };
        if is_shared {
            return Some(format!("credential `{}` has its secret_hash or certificate_name already", other.id));
        }
    }
    None
}

/// The names of the files, in order. What does not end in `.toml`, or begins with a dot, is somebody else's.
fn names(folder: &Path) -> Result<Vec<String>, String> {
    let failed = |error: std::io::Error| format!("{} cannot be read: {}", shown(folder), io_reason(&error));
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let Ok(name) = entry.map_err(failed)?.file_name().into_string() else { continue };
        if name.ends_with(".toml") && !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort_unstable();
    if names.len() > CREDENTIALS_MAX {
        return Err(format!("{} has {} files, and an edge at most {CREDENTIALS_MAX}", shown(folder), names.len()));
    }
    Ok(names)
}

fn text(path: &Path, found: &Metadata) -> Result<String, String> {
    String::from_utf8(content(path, found, CREDENTIAL_FILE_BYTES_MAX)?).map_err(|_| "is not UTF-8".into())
}

fn content(path: &Path, found: &Metadata, bytes_max: usize) -> Result<Vec<u8>, String> {
    if !found.is_file() {
        return Err("is not a file".into()); // to open a pipe could take forever
    }
    match read_bounded(path, bytes_max) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(format!("is larger than {bytes_max} bytes")),
        Err(error) => Err(format!("cannot be read: {}", io_reason(&error))),
    }
}

fn shown(path: &Path) -> String {
    plain(&path.display().to_string(), 200)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::credentials::{Badge, Refusal, Shown, Standing};
    use crate::wire::setup::Presented;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    const NOW_UNIX: u64 = 1_767_225_600;

    /// A folder of credentials, and an edge's configuration with one of its own.
    struct Site {
        folder: PathBuf,
        config: EdgeConfig,
        now_unix: u64,
    }

    impl Site {
        fn new() -> Site {
            Site::at(NOW_UNIX)
        }

        fn at(now_unix: u64) -> Site {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let folder = std::env::temp_dir().join(format!("ptth-register-{}-{count}", std::process::id()));
            std::fs::create_dir_all(folder.join("new")).unwrap();
            let text = format!(
                "[edge]\ncredentials_dir = \"{}\"\n[[listen]]\naddress = \"0.0.0.0:80\"\n\
                 accept = [\"clients\", \"workers\"]\n[[pool]]\nname = \"app\"\norigins = [\"app.example\"]\n\
                 [[credential]]\n{}",
                folder.display(),
                file("own", &["own secret"], "app.example")
            );
            let (config, _) = EdgeConfig::parse("edge.toml", &text, NOW_UNIX).unwrap();
            Site { folder, config, now_unix }
        }

        fn open(&self) -> Register {
            Register::open(&self.config, self.now_unix).unwrap()
        }

        /// Replaces a file as careful programs do.
        fn put(&self, name: &str, text: &str) {
            std::fs::write(self.folder.join("new/file"), text).unwrap();
            std::fs::rename(self.folder.join("new/file"), self.folder.join(name)).unwrap();
        }

        fn remove(&self, name: &str) {
            std::fs::remove_file(self.folder.join(name)).unwrap();
        }

        /// Looks, and says which of two cores heard of a change.
        fn look(&self, register: &Register) -> Vec<usize> {
            let mut told = Vec::new();
            register.look(&self.config, self.now_unix, false, 2, |core| {
                told.push(core);
                true
            });
            told
        }
    }

    impl Drop for Site {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }

    fn file(id: &str, secrets: &[&str], origin: &str) -> String {
        let hashes: Vec<String> =
            secrets.iter().map(|s| format!("\"{}\"", crate::edge::config::SecretHash::of(s.as_bytes()))).collect();
        format!("id = \"{id}\"\nsecret_hash = [{}]\norigins = [\"{origin}\"]\n", hashes.join(", "))
    }

    fn badge(register: &Register, secret: &str) -> Result<Badge, Refusal> {
        let presented = Presented::Bearer(secret.into());
        register.now().check(Shown { presented: Some(&presented), certificate: None }, NOW_UNIX, || true)
    }

    #[track_caller]
    fn check(register: &Register, secrets: &[(&str, Option<&str>)]) {
        for (secret, id) in secrets {
            assert_eq!(badge(register, secret).ok().map(|badge| badge.id).as_deref(), *id, "{secret}");
        }
    }

    #[test]
    fn a_file_comes_changes_and_goes_and_every_core_hears_it_once() {
        // Once with files that were written just now, and once with old ones.
        for now_unix in [NOW_UNIX, 4_000_000_000] {
            let site = Site::at(now_unix);
            site.put("web-1.toml", &file("web-1", &["one"], "app.example"));
            let register = site.open();
            check(&register, &[("own secret", Some("own")), ("one", Some("web-1")), ("two", None)]);
            assert_eq!(site.look(&register), [] as [usize; 0]);

            site.put("web-2.toml", &format!("[[credential]]\n{}", file("web-2", &["two"], "app.example")));
            assert_eq!(site.look(&register), [0, 1]);
            assert_eq!(site.look(&register), [] as [usize; 0]);
            check(&register, &[("own secret", Some("own")), ("one", Some("web-1")), ("two", Some("web-2"))]);

            let old = badge(&register, "one").ok().unwrap();
            site.put("web-1.toml", &file("web-1", &["one", "next"], "app.example"));
            assert_eq!(site.look(&register), [0, 1]);
            check(&register, &[("one", Some("web-1")), ("next", Some("web-1"))]);
            assert_eq!(register.now().standing(&old, None), Standing::Good(None));

            site.put("web-1.toml", &file("web-1", &["next"], "app.example"));
            site.look(&register);
            check(&register, &[("one", None), ("next", Some("web-1"))]);
            assert_eq!(register.now().standing(&old, None), Standing::Withdrawn);

            site.remove("web-2.toml");
            assert_eq!(site.look(&register), [0, 1]);
            check(&register, &[("own secret", Some("own")), ("next", Some("web-1")), ("two", None)]);
        }
    }

    #[test]
    fn a_file_that_is_written_in_place_twice_in_a_moment_is_read_twice() {
        let site = Site::new();
        let path = site.folder.join("web-1.toml");
        std::fs::write(&path, file("web-1", &["aaa"], "app.example")).unwrap();
        let register = site.open();
        // The same length, the same inode, and with luck the same moment.
        for secret in ["bbb", "ccc", "ddd"] {
            std::fs::write(&path, file("web-1", &[secret], "app.example")).unwrap();
            site.look(&register);
            check(&register, &[(secret, Some("web-1")), ("aaa", None)]);
        }
    }

    #[test]
    fn a_bad_file_leaves_what_was_good_last() {
        let site = Site::new();
        let good = file("web-1", &["one"], "app.example");
        site.put("web-1.toml", &good);
        site.put("bad.toml", "id = \"bad\"\nsecret_hash = 7\norigins = [\"app.example\"]\n");
        let register = site.open();
        check(&register, &[("one", Some("web-1"))]);
        for bad in [
            "",
            "id = \"web-1\"\n",
            "not toml at all",
            &format!("{good}surplus = 1\n"),
            &file("web-1", &["one"], "nobody.example"),
            &file("own", &["two"], "app.example"),
            &file("web-1", &["own secret"], "app.example"),
            &format!("[[credential]]\n{good}[[credential]]\n{}", file("web-2", &["two"], "app.example")),
            &"#".repeat(CREDENTIAL_FILE_BYTES_MAX + 1),
        ] {
            site.put("web-1.toml", bad);
            assert_eq!(site.look(&register), [] as [usize; 0], "{bad:.60}");
            check(&register, &[("one", Some("web-1")), ("own secret", Some("own")), ("two", None)]);
        }
        std::fs::write(site.folder.join("web-1.toml"), [0xff, 0xfe]).unwrap();
        assert_eq!(site.look(&register), [] as [usize; 0]);
        // A bad file that goes takes what was good with it.
        site.remove("web-1.toml");
        assert_eq!(site.look(&register), [0, 1]);
        check(&register, &[("one", None)]);
    }

    #[test]
    fn a_mistake_is_told_by_file_and_line() {
        let site = Site::new();
        site.put("a.toml", &file("web-1", &["one"], "app.example"));
        site.put("b.toml", &file("web-1", &["two"], "app.example"));
        site.put("c.toml", "id = \"web-3\"\norigins = [\"app.example\"]\nsecret_hash = \"hunter2\"\n");
        site.put("d.toml", &file("web-4", &["one"], "app.example"));
        let mistakes = mistakes(&site.config, NOW_UNIX);
        let lines: Vec<String> = mistakes.iter().flat_map(Mistakes::lines).collect();
        let folder = site.folder.display();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].starts_with(&format!("{folder}/b.toml: credential `web-1` is there already; ")), "{lines:?}");
        assert!(lines[1].starts_with(&format!("{folder}/c.toml:3:15: `secret_hash` does not begin")), "{lines:?}");
        assert!(lines[2].starts_with(&format!("{folder}/d.toml: credential `web-1` has its secret_hash")), "{lines:?}");
        assert!(!lines[1].contains("hunter2"), "{lines:?}");
    }

    #[test]
    fn what_collides_counts_as_soon_as_the_other_one_is_gone() {
        let site = Site::new();
        site.put("a.toml", &file("web-1", &["one"], "app.example"));
        site.put("b.toml", &file("web-1", &["two"], "app.example"));
        let register = site.open();
        check(&register, &[("one", Some("web-1")), ("two", None)]);
        site.remove("a.toml");
        site.look(&register);
        check(&register, &[("one", None), ("two", Some("web-1"))]);
        // Two that change places at once do not collide.
        site.put("a.toml", &file("web-2", &["three"], "app.example"));
        site.look(&register);
        check(&register, &[("two", Some("web-1")), ("three", Some("web-2"))]);
        site.put("a.toml", &file("web-1", &["two"], "app.example"));
        site.put("b.toml", &file("web-2", &["three"], "app.example"));
        site.look(&register);
        check(&register, &[("two", Some("web-1")), ("three", Some("web-2"))]);
    }

    #[test]
    fn a_volume_of_kubernetes_is_flipped_as_a_whole() {
        let site = Site::new();
        let version = |name: &str, files: &[(&str, &str)]| {
            let folder = site.folder.join(name);
            std::fs::create_dir(&folder).unwrap();
            for (name, secret) in files {
                std::fs::write(folder.join(format!("{name}.toml")), file(name, &[secret], "app.example")).unwrap();
            }
            symlink(name, site.folder.join("..data_tmp")).unwrap();
            std::fs::rename(site.folder.join("..data_tmp"), site.folder.join("..data")).unwrap();
        };
        version("..2026_01", &[("web-1", "one"), ("web-2", "two")]);
        for name in ["web-1.toml", "web-2.toml"] {
            symlink(format!("..data/{name}"), site.folder.join(name)).unwrap();
        }
        let register = site.open();
        check(&register, &[("one", Some("web-1")), ("two", Some("web-2"))]);
        // The kubelet flips first and removes the links of files that are gone afterwards.
        version("..2026_02", &[("web-1", "new")]);
        assert_eq!(site.look(&register), [0, 1]);
        check(&register, &[("one", None), ("new", Some("web-1")), ("two", None)]);
        site.remove("web-2.toml");
        assert_eq!(site.look(&register), [] as [usize; 0]);
    }

    #[test]
    fn a_folder_that_is_gone_changes_nothing_and_is_a_mistake_at_the_start() {
        let site = Site::new();
        site.put("web-1.toml", &file("web-1", &["one"], "app.example"));
        let register = site.open();
        let moved = site.folder.with_extension("moved");
        std::fs::rename(&site.folder, &moved).unwrap();
        assert_eq!(site.look(&register), [] as [usize; 0]);
        check(&register, &[("one", Some("web-1"))]);
        let mistakes = Register::open(&site.config, NOW_UNIX).err().expect("nothing is there").to_string();
        assert!(mistakes.starts_with("edge.toml:2:19: ") && mistakes.contains("cannot be read"), "{mistakes}");
        std::fs::rename(&moved, &site.folder).unwrap();
        site.put("web-1.toml", &file("web-1", &["two"], "app.example"));
        assert_eq!(site.look(&register), [0, 1]);
        check(&register, &[("one", None), ("two", Some("web-1"))]);
    }

    #[test]
    fn a_core_whose_box_is_full_is_told_later() {
        let site = Site::new();
        let register = site.open();
        site.put("web-1.toml", &file("web-1", &["one"], "app.example"));
        let mut told = Vec::new();
        for is_full in [true, true, false, false] {
            register.look(&site.config, NOW_UNIX, false, 3, |core| {
                told.push((core, is_full));
                core != 1 || !is_full
            });
        }
        assert_eq!(told, [(0, true), (1, true), (2, true), (1, true), (1, false)]);
    }

    #[test]
    fn the_next_configuration_keeps_what_was_good_and_the_links_that_are_up() {
        let site = Site::new();
        site.put("web-1.toml", &(file("web-1", &["one"], "app.example") + "links_max = 1\n"));
        let register = site.open();
        let seat = badge(&register, "one").ok().unwrap().take_seat().expect("the first link");
        site.put("web-1.toml", "id = ");
        site.look(&register);
        let next = register.follow(&site.config, site.now_unix).unwrap();
        check(&next, &[("one", Some("web-1")), ("own secret", Some("own"))]);
        assert!(badge(&next, "one").ok().unwrap().take_seat().is_none(), "it has its link");
        drop(seat);
        assert!(badge(&next, "one").ok().unwrap().take_seat().is_some());
        // A process that starts now does not know what was there, and another folder has other files.
        check(&site.open(), &[("one", None)]);
        let other = Site::new();
        check(&register.follow(&other.config, site.now_unix).unwrap(), &[("one", None)]);
        // What changed in the meantime is read.
        site.put("web-1.toml", &file("web-1", &["two"], "app.example"));
        check(&register.follow(&site.config, site.now_unix).unwrap(), &[("one", None), ("two", Some("web-1"))]);
        site.remove("web-1.toml");
        check(&register.follow(&site.config, site.now_unix).unwrap(), &[("one", None), ("two", None)]);
    }

    #[test]
    fn links_of_a_credential_that_went_and_came_back_count() {
        let site = Site::new();
        let text = file("web-1", &["one"], "app.example") + "links_max = 1\n";
        site.put("web-1.toml", &text);
        let register = site.open();
        let seat = badge(&register, "one").ok().unwrap().take_seat().expect("the first link");
        site.remove("web-1.toml");
        site.look(&register);
        site.put("web-1.toml", &text);
        site.look(&register);
        let again = badge(&register, "one").ok().unwrap();
        assert!(again.take_seat().is_none(), "its old link still drains");
        drop(seat);
        assert!(again.take_seat().is_some());
    }
}
