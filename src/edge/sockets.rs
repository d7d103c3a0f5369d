//! The listening sockets of the process, by address: found, opened, and dealt out to the cores of a generation. A socket
//! lives as long as some configuration wants its address; who accepts on it never enters.

use std::io;
use std::net::{SocketAddr, TcpListener};

use super::config::EdgeConfig;
use crate::io::{bind_listener, start_listening};
use crate::limits::LISTEN_BACKLOG;

/// A descriptor of each socket, kept beside those that the cores accept on: so a socket is never closed because a core is.
#[derive(Default)]
pub struct Sockets {
    addresses: Vec<(SocketAddr, Vec<Kept>)>,
}

/// One socket.
pub struct Kept {
    pub listener: TcpListener,
    /// Whoever started this process opened it, and keeps it: it is never told to stop.
    pub is_lent: bool,
}

/// A socket for a core to accept on.
pub struct Given {
    pub listener: TcpListener,
    /// Its index in the configuration; `None` is the admin's.
    pub listen: Option<usize>,
    pub is_lent: bool,
}

/// Sockets for the cores of one generation.
pub struct Dealt {
    pub sockets: Sockets,
    pub cores: Vec<Vec<Given>>,
    /// Where it really listens, in the order of the configuration; a port 0 is resolved here.
    pub addresses: Vec<SocketAddr>,
    pub admin: Option<SocketAddr>,
}

impl Sockets {
    /// What somebody else had opened and listens on.
    pub fn of(kept: Vec<Kept>) -> Sockets {
        let mut sockets = Sockets::default();
        for kept in kept {
            if let Ok(address) = kept.listener.local_addr() {
                sockets.add(address, kept);
            }
        }
        sockets
    }

    fn add(&mut self, address: SocketAddr, kept: Kept) {
        match self.addresses.iter_mut().find(|(own, _)| *own == address) {
            Some((_, all)) => all.push(kept),
            None => self.addresses.push((address, vec![kept])),
        }
    }

    /// All sockets, those of one address together.
    pub fn iter(&self) -> impl Iterator<Item = &Kept> {
        self.addresses.iter().flat_map(|(_, all)| all)
    }

    fn has(&self, address: SocketAddr) -> bool {
        self.addresses().any(|own| own == address)
    }

    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.addresses.iter().map(|(address, _)| *address)
    }

    /// The new ones listen from now on, behind all that could fail: SO_REUSEPORT would give them a part of all connections, and
    /// whoever closed them again would reset those.
    pub fn listen(&self) -> Result<(), String> {
        for (address, all) in &self.addresses {
            for kept in all.iter().filter(|kept| !kept.is_lent) {
                start_listening(&kept.listener, LISTEN_BACKLOG).map_err(|error| cannot_listen(*address, &error))?;
            }
        }
        Ok(())
    }

    /// Deals out the sockets that this configuration wants to so many cores: those that are here already, and new ones. Each
    /// core gets at least one of every address, and none is left without a core: its backlog would wait for ever. Nothing
    /// changes here, so that whoever fails later has nothing to undo.
    pub fn deal(&self, config: &EdgeConfig, cores: usize) -> Result<Dealt, String> {
        let mut dealt = Dealt {
            sockets: Sockets::default(),
            cores: (0..cores).map(|_| Vec::new()).collect(),
            addresses: Vec::new(),
            admin: None,
        };
        for (index, listen) in config.listens.iter().enumerate() {
            let address = self.deal_one(listen.address, Some(index), cores, &mut dealt)?;
            dealt.addresses.push(address);
        }
        if let Some(address) = config.admin {
            // One core answers for all: the admin's reader is a person or a scraper.
            dealt.admin = Some(self.deal_one(address, None, 1, &mut dealt)?);
        }
        // Whoever has lent a socket listens on; a later configuration may want it again, and could not bind its address.
        for (address, all) in &self.addresses {
            let is_here = dealt.sockets.has(*address);
            for kept in all.iter().filter(|kept| kept.is_lent && !is_here) {
                let twin = kept.twin().map_err(|error| cannot_listen(*address, &error))?;
                dealt.sockets.add(*address, twin);
            }
        }
        Ok(dealt)
    }

    fn deal_one(
        &self,
        mut address: SocketAddr,
        listen: Option<usize>,
        cores: usize,
        dealt: &mut Dealt,
    ) -> Result<SocketAddr, String> {
        let here = self.addresses.iter().find(|(own, _)| *own == address);
        let here = here.map_or(&[][..], |(_, all)| all);
        let mut all = here.iter().map(Kept::twin).collect::<io::Result<Vec<_>>>();
        let all = all.as_mut().map_err(|error| cannot_listen(address, error))?;
        while all.len() < cores {
            match bind_listener(address) {
                Ok(listener) => {
                    if address.port() == 0 {
                        address = listener.local_addr().map_err(|error| cannot_listen(address, &error))?;
                    }
                    all.push(Kept { listener, is_lent: false });
                }
                // Whoever opened it meant it for one program alone (no SO_REUSEPORT): some cores share a socket.
                Err(_) if !here.is_empty() => break,
                Err(error) => return Err(cannot_listen(address, &error)),
            }
        }
        for step in 0..all.len().max(cores) {
            let twin = all[step % all.len()].twin().map_err(|error| cannot_listen(address, &error))?;
            dealt.cores[step % cores].push(Given { listener: twin.listener, listen, is_lent: twin.is_lent });
        }
        for kept in all.drain(..) {
            dealt.sockets.add(address, kept);
        }
        Ok(address)
    }
}

impl Kept {
    /// Another descriptor of the same socket.
    pub fn twin(&self) -> io::Result<Kept> {
        Ok(Kept { listener: self.listener.try_clone()?, is_lent: self.is_lent })
    }
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> String {
    format!("cannot listen on {address}: {error}; is another program there, or the port below 1024?")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::config::{EdgeConfig, Listen};
    use std::os::fd::AsRawFd as _;

    fn config(listens: &[SocketAddr], admin: Option<SocketAddr>) -> EdgeConfig {
        let text = "[[listen]]\naddress = \"127.0.0.1:1\"\naccept = [\"clients\", \"workers\"]\n[[pool]]\nname = \"a\"\n\
                    origins = [\"*\"]\n";
        let (mut config, _) = EdgeConfig::parse("edge.toml", text, 0).expect("TOML");
        config.listens = listens.iter().map(|address| Listen::new(*address, true, true)).collect();
        config.admin = admin;
        config
    }

    fn any() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    /// The kernel's number of the socket behind a descriptor.
    fn inode(listener: &TcpListener) -> std::path::PathBuf {
        std::fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).expect("an open descriptor")
    }

    fn inodes(dealt: &Dealt) -> Vec<Vec<std::path::PathBuf>> {
        dealt.cores.iter().map(|core| core.iter().map(|given| inode(&given.listener)).collect()).collect()
    }

    #[test]
    fn sockets_go_over_to_any_number_of_cores_and_none_is_left_out() {
        let first = Sockets::default().deal(&config(&[any(), any()], Some(any())), 3).expect("any port is free");
        assert_eq!(first.cores.iter().map(Vec::len).collect::<Vec<_>>(), [3, 2, 2], "core 0 has the admin's, too");
        let again = config(&first.addresses, first.admin);
        for cores in 1..=5 {
            let next = first.sockets.deal(&again, cores).expect("they are here");
            assert_eq!((&next.addresses, next.admin), (&first.addresses, first.admin));
            let (before, after) = (inodes(&first).concat(), inodes(&next).concat());
            assert!(before.iter().all(|inode| after.contains(inode)), "{cores} cores: a backlog waits for nobody");
            for core in &next.cores {
                for listen in [Some(0), Some(1)] {
                    assert!(core.iter().any(|given| given.listen == listen), "{cores} cores: {listen:?}");
                }
            }
            let new = after.iter().filter(|inode| !before.contains(inode)).count();
            assert_eq!(new, 2 * cores.saturating_sub(3));
            assert_eq!(next.sockets.iter().count(), 7 + new, "each is known once");
        }
    }

    #[test]
    fn a_socket_that_cannot_be_opened_twice_is_shared() {
        let alone = TcpListener::bind(any()).expect("a port");
        let address = alone.local_addr().expect("an address");
        let wanted = inode(&alone);
        let lent = Sockets::of(vec![Kept { listener: alone, is_lent: true }]);
        let dealt = lent.deal(&config(&[address], None), 3).expect("it is here");
        assert_eq!(inodes(&dealt), vec![vec![wanted]; 3]);
        assert_eq!(dealt.sockets.iter().count(), 1);
        assert!(dealt.cores.iter().flatten().all(|given| given.is_lent), "it is never told to stop");
    }

    #[test]
    fn a_socket_that_was_lent_is_kept_though_no_configuration_wants_it() {
        let alone = TcpListener::bind(any()).expect("a port");
        let address = alone.local_addr().expect("an address");
        let wanted = inode(&alone);
        let first = Sockets::of(vec![Kept { listener: alone, is_lent: true }]);
        let without = first.deal(&config(&[any()], None), 2).expect("any port is free");
        assert!(inodes(&without).concat().iter().all(|inode| *inode != wanted), "nobody accepts on it");
        drop(first);
        let dropped: Vec<SocketAddr> = without.sockets.addresses().filter(|own| *own != address).collect();
        let again = without.sockets.deal(&config(&[address], None), 2).expect("it is here");
        assert_eq!(inodes(&again), vec![vec![wanted]; 2]);
        assert!(again.sockets.addresses().all(|own| !dropped.contains(&own)), "our own are closed");
    }

    #[test]
    fn an_address_that_somebody_else_has_is_an_error_and_changes_nothing() {
        let other = TcpListener::bind(any()).expect("a port");
        let first = Sockets::default().deal(&config(&[any()], None), 1).expect("any port is free");
        let taken = other.local_addr().expect("an address");
        let refused = first.sockets.deal(&config(&[first.addresses[0], taken], None), 2);
        let why = refused.err().expect("it is taken");
        assert!(why.contains(&format!("cannot listen on {taken}: ")), "{why}");
        assert_eq!(first.sockets.addresses().collect::<Vec<_>>(), first.addresses);
    }

    #[test]
    fn an_address_may_change_its_meaning() {
        let first = Sockets::default().deal(&config(&[any(), any()], None), 2).expect("any port is free");
        let swapped = config(&first.addresses[..1], Some(first.addresses[1]));
        let next = first.sockets.deal(&swapped, 2).expect("they are here");
        let admins: Vec<_> =
            next.cores.iter().map(|core| core.iter().filter(|given| given.listen.is_none()).count()).collect();
        assert_eq!(admins, [2, 0], "both of its sockets are accepted on");
    }
}
