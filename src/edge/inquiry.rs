//! Questions to cores, of any generation, and their answers. What is asked never enters.

use std::rc::Rc;

use super::core::{Core, Message};
use super::lineage::Member;
use crate::io;
use crate::limits::REPORT_MS_MAX;
use crate::xcore::{PipeRx, pipe};

/// What a core answers to `question`; this core at once, another one from its bell task. `None`: it has ended, or hangs.
pub async fn ask<T: Send + 'static>(
    core: &Rc<Core>,
    member: &Member,
    index: usize,
    question: impl FnOnce(&Core) -> T + Send + 'static,
) -> Option<T> {
    let shared = &member.shared;
    if shared.generation == core.shared.generation && index == usize::from(core.id.0) {
        return Some(question(core));
    }
    let (mut tx, mut rx): (_, PipeRx<T>) = pipe(1);
    let tell = Box::new(move |core: &Core| {
        let _ = tx.try_send(question(core)); // who left does not need it
    });
    shared.posts[index].send(Message::Ask(tell)).ok()?;
    io::timeout(REPORT_MS_MAX, std::future::poll_fn(|cx| rx.poll_recv(cx, &core.home))).await.flatten()
}
