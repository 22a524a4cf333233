//! How things look on their way through Redis: who sent it, and what. A script that appends writes the place it gave
//! beside the publication, as a script can't write into it.
//!
//! `c <origin>\n` before what is carried as it is; `a <origin> <epoch> <offset>\n` before a publication without its
//! place.

use std::sync::Arc;

use xpush_protocol::{ChannelName, Cursor, Epoch};

use crate::{broker::Carried, publication::Publication};

/// What came, and from which instance.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Envelope<'a> {
    pub(crate) origin: u64,
    /// Where a log just put it.
    pub(crate) place: Option<Cursor>,
    body: &'a [u8],
}

impl<'a> Envelope<'a> {
    pub(crate) fn seal(origin: u64, carried: &Carried) -> Vec<u8> {
        let mut sealed = format!("c {origin:016x}\n").into_bytes();
        sealed.extend_from_slice(&carried.encode());
        sealed
    }

    /// What a script puts before ``<epoch> <offset>\n<publication>``.
    pub(crate) fn head(origin: u64) -> String {
        format!("a {origin:016x} ")
    }

    /// `None`: nobody of us sealed that.
    pub(crate) fn open(bytes: &'a [u8]) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let body = &bytes[end + 1..];
        let mut words = head.split(' ');
        let (kind, origin) = (words.next()?, u64::from_str_radix(words.next()?, 16).ok()?);
        let place = match kind {
            "c" => None,
            "a" => {
                let (epoch, offset) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
                Some(Cursor { epoch: Epoch(epoch), offset })
            }
            _ => return None,
        };
        words.next().is_none().then_some(Self { origin, place, body })
    }

    /// `None`: no node of this version wrote that.
    pub(crate) fn carried(&self) -> Option<Carried> {
        let Some(place) = self.place else { return Carried::decode(self.body) };
        let (channel, publication) = placed(self.body, place.offset)?;
        Some(Carried::Publication { channel, epoch: place.epoch, publication: Arc::new(publication) })
    }
}

/// A publication as it is written without its place.
pub(crate) fn without_place(channel: &ChannelName, publication: Publication) -> Vec<u8> {
    let publication = Arc::new(Publication { offset: 0, ..publication });
    Carried::Publication { channel: channel.clone(), epoch: Epoch(0), publication }.encode()
}

/// It, with its place. `None`: no node of this version wrote that.
pub(crate) fn placed(bytes: &[u8], offset: u64) -> Option<(ChannelName, Publication)> {
    let Carried::Publication { channel, publication, .. } = Carried::decode(bytes)? else { return None };
    // Just read, it is nobody else's.
    let publication = Arc::try_unwrap(publication).ok()?;
    Some((channel, Publication { offset, ..publication }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::fixture::{channel, draft};

    #[test]
    fn what_was_sealed_is_opened() {
        let carried =
            Carried::Top { channel: channel("room:a"), cursor: Cursor { epoch: Epoch(1), offset: 2 } };
        let sealed = Envelope::seal(u64::MAX, &carried);
        let opened = Envelope::open(&sealed).unwrap();
        assert_eq!((opened.origin, opened.place, opened.carried()), (u64::MAX, None, Some(carried)));

        let mut sealed = format!("{}7 9\n", Envelope::head(5)).into_bytes();
        sealed.extend(without_place(&channel("room:a"), draft("ann", 1).into_publication(0)));
        let opened = Envelope::open(&sealed).unwrap();
        assert_eq!((opened.origin, opened.place), (5, Some(Cursor { epoch: Epoch(7), offset: 9 })));
        let publication = Arc::new(draft("ann", 1).into_publication(9));
        let expected = Carried::Publication { channel: channel("room:a"), epoch: Epoch(7), publication };
        assert_eq!(opened.carried(), Some(expected));
    }

    #[test]
    fn what_others_wrote_is_not_opened() {
        for wrong in
            ["", "c", "c 1", "c x\n", "c 1 2\n", "a 1\n", "a 1 2\n", "a 1 2 x\n", "a 1 2 3 4\n", "z 1\n"]
        {
            assert_eq!(Envelope::open(wrong.as_bytes()), None, "{wrong:?}");
        }
        assert_eq!(Envelope::open(b"c 1\nno carried thing").unwrap().carried(), None);
    }
}
