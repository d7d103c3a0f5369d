//! Counts the allocations of the whole process: one test, alone in its binary.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::os::unix::net::UnixStream;

use bytes::Bytes;
use ptth::clock;
use ptth::io::{self, Conn, Timer};

struct Counting;
thread_local! {
    /// This thread's alone: the harness has threads of its own.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1)); // a thread that ends has none
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

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
                    after_warming = ALLOCATIONS.get();
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
            assert_eq!(ALLOCATIONS.get() - after_warming, 0);
        })
    });
    done.expect("io_uring").expect("the test hangs");
}
