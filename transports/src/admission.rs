//! How many connections there may be: in all, and from one address. One `Admission` serves all wires of a node,
//! so that an address can't have its share once per wire.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use thiserror::Error;

/// Counts connections and refuses those beyond the limits.
#[derive(Debug, Clone)]
pub struct Admission(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    in_all: usize,
    per_address: usize,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Why a connection is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refused {
    #[error("the node has {0} connections, as many as it may")]
    Full(usize),
    #[error("the address has {0} connections, as many as it may")]
    AddressFull(usize),
}

/// One connection's place; free again when this is dropped.
#[derive(Debug)]
pub struct Permit {
    admission: Admission,
    address: IpAddr,
}

impl Admission {
    #[must_use]
    pub fn new(in_all: usize, per_address: usize) -> Self {
        Self(Arc::new(Inner { in_all, per_address, counts: Mutex::default() }))
    }

    pub fn admit(&self, address: IpAddr) -> Result<Permit, Refused> {
        let address = address.to_canonical();
        let mut counts = self.counts();
        if counts.all >= self.0.in_all {
            return Err(Refused::Full(self.0.in_all));
        }
        let of_address = counts.by_address.entry(address).or_default();
        if *of_address >= self.0.per_address {
            return Err(Refused::AddressFull(self.0.per_address));
        }
        *of_address += 1;
        counts.all += 1;
        Ok(Permit { admission: self.clone(), address })
    }

    /// Connections now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.counts().all
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // The counts are whole after every statement: a panic elsewhere can't have broken them.
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.admission.counts();
        counts.all -= 1;
        if let Some(of_address) = counts.by_address.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_permit_is_dropped() {
        let admission = Admission::new(3, 2);
        let [a, b] = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2])];
        let first = admission.admit(a).unwrap();
        let _second = admission.admit(a).unwrap();
        assert_eq!(admission.admit(a).unwrap_err(), Refused::AddressFull(2));
        let _third = admission.admit(b).unwrap();
        assert_eq!(admission.admit(b).unwrap_err(), Refused::Full(3));
        drop(first);
        assert!(admission.admit(a).is_ok());
        assert_eq!(admission.count(), 3 - 1);
    }
}
