//! What the supervisor hands an agent that must show nowhere: read from memory that only this process was given.

use std::fmt;
use std::io;

/// The content of a secret's file. It prints as nothing but its length.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    bytes: Vec<u8>,
}

impl Secret {
    /// Its bytes, as they lie in the file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its text without the end of line that editors add; `None` when it is not UTF-8.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes).ok().map(|text| text.trim_end_matches(['\r', '\n']))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.bytes.len())
    }
}

/// A secret of this agent, by its name in the swarm file (`secrets = { NAME = "FILE" }`).
///
/// # Errors
/// The swarm file names none of this name for this agent.
pub fn secret(name: &str) -> io::Result<Secret> {
    Ok(Secret { bytes: shoal_runtime::bootstrap::secret(name)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_does_not_print_what_it_is() {
        let secret = Secret { bytes: b"hush\n".to_vec() };
        assert_eq!(format!("{secret:?}"), "Secret(5 bytes)");
        assert_eq!(secret.text(), Some("hush"));
    }

    #[test]
    fn secret_that_was_not_given_is_an_error_that_says_what_to_write() {
        let error = secret("NO_SUCH").expect_err("none");
        assert!(error.to_string().contains("secrets = { NO_SUCH = \"FILE\" }"), "{error}");
    }
}
