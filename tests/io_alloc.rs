//! Counts the allocations of the whole process: one test, alone in its binary.

mod counting;

use std::os::unix::net::UnixStream;

use bytes::Bytes;
use ptth::clock;
use ptth::io::{self, Conn, Timer};

#[test]
fn small_reads_and_writes_allocate_nothing() {
    let done = io::run(|| {
        io::timeout(30_000, async {
            let (near, far) = UnixStream::pair().unwrap();
            let mut near = Conn::from_fd(near.into(), Bytes::new()).unwrap();
            let mut far = Conn::from_fd(far.into(), Bytes::new()).unwrap();
            io::spawn(async move {
                while far.reader.fill().await.unwrap() > 0 {
                    let n = far.reader.buffer().len();
                    far.writer.put(far.reader.buffer());
                    far.reader.consume(n);
                    far.writer.flush().await.unwrap();
                }
            });
            let mut timer = Timer::new();
            let mut after_warming = 0;
            for round in 0..1_100 {
                if round == 100 {
                    after_warming = counting::allocations();
                }
                timer.set(clock::now().plus_ms(10_000));
                near.writer.put(b"there and back");
                near.writer.flush().await.unwrap();
                while near.reader.buffer().len() < 14 {
                    near.reader.fill().await.unwrap();
                }
                near.reader.consume(14);
                timer.clear();
            }
            assert_eq!(counting::allocations() - after_warming, 0);
        })
    });
    done.expect("io_uring").expect("the test hangs");
}
