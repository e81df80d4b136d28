//! Cuts, and files that were cut, stored and put together again.
//!
//! An input would be shorter than the smallest chunk. So it is a script that a file is made by: two bytes of choices,
//! then steps of four bytes, each of which appends noise, a run, a pattern, or what is there already once more.

use std::sync::Arc;

use nbak::chunk::{CONTENT, Cut, Cutter, PAGE};
use nbak::id::ChunkId;
use nbak::snapshot::look::chunks_of;
use nbak::snapshot::save::Session;
use nbak::store::memory::Memory;
use nbak::store::reader::Packs;
use nbak::store::segment::Content;
use nbak::store::sink::PackSink;

use super::sealed;

/// The longest file, in bytes.
const MOST: usize = 256 * 1024;

pub fn body(data: &[u8]) {
    let [choice, seed, steps @ ..] = data else { return };
    let file = make(steps);
    decisions(data, file.len() as u64);
    let cutter = Cutter::new(u64::from(*seed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    cuts(&cutter, &file, 1500 + usize::from(*choice) * 1021);
    match choice % 8 {
        0 => stored(Cut::Content, &file),
        1 => stored(Cut::Pages(PAGE << (choice / 8 % 5)), &file),
        _ => {}
    }
}

fn make(steps: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    for step in steps.chunks_exact(4) {
        let length = usize::from(u16::from_le_bytes([step[1], step[2]])) * 4 + usize::from(step[3] & 3);
        let length = length.min(MOST - file.len());
        match step[0] % 4 {
            0 => {
                let start = file.len();
                file.resize(start + length, 0);
                blake3::Hasher::new().update(&[step[3]]).finalize_xof().fill(&mut file[start..]);
            }
            1 => file.resize(file.len() + length, step[3]),
            2 => file.extend((0..length).map(|at| (at % (usize::from(step[3]) + 2)) as u8)),
            _ => {
                let from = file.len() * usize::from(step[3]) / 256;
                file.extend_from_within(from..(from + length).min(file.len()));
                file.truncate(MOST);
            }
        }
    }
    file
}

fn decisions(data: &[u8], size: u64) {
    for size in [size, size / 4096 * 4096, u64::from(data[0]) << (data[1] % 57)] {
        match Cut::for_file(size) {
            Cut::Pages(page) => assert!(page == PAGE && size >= 64 * 1024 && size.is_multiple_of(4096)),
            Cut::Content => assert!(size < 64 * 1024 || !size.is_multiple_of(4096)),
        }
    }
    let page = 512 << (data[0] % 8);
    assert_eq!(Cut::for_database(page), Cut::Pages(page.max(4096)));
}

fn cuts(cutter: &Cutter, file: &[u8], odd: usize) {
    let (least, _, most) = CONTENT;
    let whole = cutter.cuts(file, true);
    assert_eq!(whole.iter().sum::<usize>(), file.len(), "chunks rejoin");
    let mut at = 0;
    for (nth, length) in whole.iter().enumerate() {
        assert!((least..=most).contains(length) || (nth + 1 == whole.len() && (1..=most).contains(length)));
        let window = &file[at..file.len().min(at + most)];
        assert_eq!(cutter.first(window), *length, "a cut depends on nothing beyond the largest chunk");
        at += length;
    }
    let part = cutter.cuts(file, false);
    assert!(whole.starts_with(&part), "what is cut early is cut alike");
    assert!(file.len() - part.iter().sum::<usize>() < most);
    // As if it were read in pieces of some odd length.
    let (mut pieces, mut start, mut end) = (Vec::new(), 0, 0);
    while end < file.len() {
        end = file.len().min(end + 1 + odd);
        let some = cutter.cuts(&file[start..end], end == file.len());
        start += some.iter().sum::<usize>();
        pieces.extend(some);
    }
    assert_eq!(pieces, whole, "cuts do not depend on how a file is read");
}

/// The file as a snapshot stores it, read again.
fn stored(cut: Cut, file: &[u8]) {
    let (objects, keys) = (Arc::new(Memory::default()), sealed::keys());
    let catalog = sealed::catalog(Packs::new(objects.clone(), keys.clone()));
    let mut session = Session::new(&catalog, PackSink::new(objects.clone(), keys.clone()), false);
    let mut rest = file;
    let mut read = |buffer: &mut [u8]| {
        let (now, later) = rest.split_at(rest.len().min(buffer.len()));
        buffer[..now.len()].copy_from_slice(now);
        rest = later;
        Ok(now.len())
    };
    let (size, content) = session.save(cut, None, &mut read).expect("memory takes it");
    assert_eq!(size, file.len() as u64);
    session.sink.flush().and_then(nbak::store::sink::Flushed::keep).expect("memory takes it");
    let catalog = sealed::catalog(Packs::new(objects, keys.clone()));
    let chunks = chunks_of(&catalog, size, &content).expect("what was stored is there");
    let lengths: Vec<usize> = chunks.iter().map(|(length, _)| *length as usize).collect();
    match cut {
        Cut::Content => assert_eq!(lengths, Cutter::new(keys.chunker_seed()).cuts(file, true)),
        Cut::Pages(page) => {
            let (last, others) = lengths.split_last().unwrap_or((&1, &[]));
            assert!(others.iter().all(|length| *length == page as usize) && (1..=page as usize).contains(last));
        }
    }
    let mut again = Vec::with_capacity(file.len());
    for (length, id) in chunks {
        if id == ChunkId::ZEROS {
            again.resize(again.len() + length as usize, 0);
        } else {
            again.extend(catalog.chunk(Content::Data, id).expect("what was stored is there"));
        }
    }
    assert!(again == file, "a file comes back as it was");
}
