//! UNSAFE. ZeroMQ by `PAIR` sockets over `ipc://`, where its library is installed: it is opened when it is asked for, so that
//! nothing needs it to build. Messages are written and read in ZeroMQ's own memory (`zmq_msg_*`).

use crate::wire::Wire;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;

const PAIR: c_int = 0;
/// Messages that a socket holds in each direction.
const HIGH_WATER: c_int = 10_000;
const SEND_HIGH_WATER: c_int = 23;
const RECEIVE_HIGH_WATER: c_int = 24;
const LINGER: c_int = 17;

/// `zmq_msg_t`: 64 bytes, aligned as a pointer.
#[repr(C, align(8))]
struct Message([u8; 64]);

/// The functions of the library.
#[derive(Clone, Copy)]
struct Library {
    errno: unsafe extern "C" fn() -> c_int,
    strerror: unsafe extern "C" fn(c_int) -> *const c_char,
    ctx_new: unsafe extern "C" fn() -> *mut c_void,
    socket: unsafe extern "C" fn(*mut c_void, c_int) -> *mut c_void,
    setsockopt: unsafe extern "C" fn(*mut c_void, c_int, *const c_void, usize) -> c_int,
    bind: unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int,
    connect: unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int,
    msg_init: unsafe extern "C" fn(*mut Message) -> c_int,
    msg_init_size: unsafe extern "C" fn(*mut Message, usize) -> c_int,
    msg_data: unsafe extern "C" fn(*mut Message) -> *mut c_void,
    msg_size: unsafe extern "C" fn(*const Message) -> usize,
    msg_send: unsafe extern "C" fn(*mut Message, *mut c_void, c_int) -> c_int,
    msg_recv: unsafe extern "C" fn(*mut Message, *mut c_void, c_int) -> c_int,
    msg_close: unsafe extern "C" fn(*mut Message) -> c_int,
}

/// Whether the library is installed.
pub fn is_installed() -> bool {
    Library::open().is_ok()
}

impl Library {
    // The types of the functions stand in the struct.
    #[allow(clippy::missing_transmute_annotations)]
    fn open() -> io::Result<Library> {
        // SAFETY: a constant name; what it runs on loading is the library's own.
        let library = unsafe { libc::dlopen(c"libzmq.so.5".as_ptr(), libc::RTLD_NOW) };
        if library.is_null() {
            return Err(io::Error::other("libzmq.so.5 is not installed"));
        }
        let symbol = |name: &CStr| {
            // SAFETY: the library is open, and stays so.
            let found = unsafe { libc::dlsym(library, name.as_ptr()) };
            if found.is_null() {
                return Err(io::Error::other(format!("libzmq.so.5 has no {}", name.to_string_lossy())));
            }
            Ok(found)
        };
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the signature is that of zmq.h of ZeroMQ 4, which this version of the library keeps.
                unsafe { std::mem::transmute::<*mut c_void, _>(symbol($name)?) }
            };
        }
        Ok(Library {
            errno: function!(c"zmq_errno"),
            strerror: function!(c"zmq_strerror"),
            ctx_new: function!(c"zmq_ctx_new"),
            socket: function!(c"zmq_socket"),
            setsockopt: function!(c"zmq_setsockopt"),
            bind: function!(c"zmq_bind"),
            connect: function!(c"zmq_connect"),
            msg_init: function!(c"zmq_msg_init"),
            msg_init_size: function!(c"zmq_msg_init_size"),
            msg_data: function!(c"zmq_msg_data"),
            msg_size: function!(c"zmq_msg_size"),
            msg_send: function!(c"zmq_msg_send"),
            msg_recv: function!(c"zmq_msg_recv"),
            msg_close: function!(c"zmq_msg_close"),
        })
    }

    /// What the library says about its last failure.
    fn failed(&self, doing: &str) -> io::Error {
        // SAFETY: the text is a constant of the library.
        let text = unsafe { CStr::from_ptr((self.strerror)((self.errno)())) };
        io::Error::other(format!("{doing}: {}", text.to_string_lossy()))
    }

    fn done(&self, status: c_int, doing: &str) -> io::Result<()> {
        if status < 0 { Err(self.failed(doing)) } else { Ok(()) }
    }
}

/// One end. Socket and context live as long as the process.
pub struct ZeroMq {
    library: Library,
    socket: *mut c_void,
}

impl ZeroMq {
    /// Opens a socket: the first end's waits at the address, the second's goes there.
    ///
    /// # Errors
    /// The library is not there, or refuses.
    pub fn open(address: &str, first: bool) -> io::Result<Self> {
        let library = Library::open()?;
        let address = CString::new(address).map_err(io::Error::other)?;
        // SAFETY: as zmq.h has it; the socket is used by this thread only.
        unsafe {
            let context = (library.ctx_new)();
            let socket = (library.socket)(context, PAIR);
            if socket.is_null() {
                return Err(library.failed("making a socket"));
            }
            for (option, value) in
                [(SEND_HIGH_WATER, HIGH_WATER), (RECEIVE_HIGH_WATER, HIGH_WATER), (LINGER, 0)]
            {
                let set = (library.setsockopt)(socket, option, (&raw const value).cast(), size_of::<c_int>());
                library.done(set, "setting an option")?;
            }
            let meet = if first { library.bind } else { library.connect };
            library.done(meet(socket, address.as_ptr()), "meeting the other end")?;
            Ok(ZeroMq { library, socket })
        }
    }
}

impl Wire for ZeroMq {
    fn send(&mut self, bytes: usize, fill: impl FnOnce(&mut [u8])) -> io::Result<()> {
        let (library, mut message) = (self.library, Message([0; 64]));
        // SAFETY: as zmq.h has it: `msg_init_size` makes the message of so many bytes, which are ours until it is sent.
        unsafe {
            library.done((library.msg_init_size)(&raw mut message, bytes), "making a message")?;
            let data = (library.msg_data)(&raw mut message).cast::<u8>();
            fill(std::slice::from_raw_parts_mut(data, bytes));
            library.done((library.msg_send)(&raw mut message, self.socket, 0), "sending")
        }
    }

    fn receive(&mut self, _limit: u64, mut look: impl FnMut(&[u8])) -> io::Result<u64> {
        let (library, mut message) = (self.library, Message([0; 64]));
        // SAFETY: as zmq.h has it: the message's bytes are ours until it is closed.
        unsafe {
            library.done((library.msg_init)(&raw mut message), "making a message")?;
            library.done((library.msg_recv)(&raw mut message, self.socket, 0), "receiving")?;
            let data = (library.msg_data)(&raw mut message).cast::<u8>();
            look(std::slice::from_raw_parts(data, (library.msg_size)(&raw const message)));
            library.done((library.msg_close)(&raw mut message), "closing a message")?;
        }
        Ok(1)
    }
}
