//! The peers. Each is used as its documentation says is fastest: with what lends memory where there is such a thing, and
//! with several messages to a system call where it has that.

#[cfg(feature = "aeron")]
pub mod aeron;
pub mod bytes;
pub mod flow;
#[cfg(feature = "iceoryx2")]
#[allow(unsafe_code)]
pub mod iceoryx;
#[cfg(feature = "ipc-channel")]
pub mod ipc_channel;
#[allow(unsafe_code)]
pub mod locked;
pub mod nats;
pub mod packets;
pub mod redis;
#[allow(unsafe_code)]
pub mod zeromq;
