//! A Lua script, known to the server by its hash once it was sent.

use ::redis::Cmd;

/// A script, and what the server knows it by.
pub(crate) struct Script {
    text: String,
    hash: String,
}

impl Script {
    pub(crate) fn new(text: String) -> Self {
        let hash = ::redis::Script::new(&text).get_hash().to_owned();
        Self { text, hash }
    }

    /// By its hash: the server has to know it.
    pub(crate) fn by_hash(&self, keys: &[String]) -> Cmd {
        call("EVALSHA", &self.hash, keys)
    }

    /// With its text: the server knows it from then on.
    pub(crate) fn whole(&self, keys: &[String]) -> Cmd {
        call("EVAL", &self.text, keys)
    }
}

fn call(command: &str, script: &str, keys: &[String]) -> Cmd {
    let mut call = ::redis::cmd(command);
    call.arg(script).arg(keys.len()).arg(keys);
    call
}
