//! A page that is replaced, against all pages saved anew: the same content must come out, whatever its form, and the
//! places that differ must be the ones that were changed.

use std::sync::Arc;

use super::*;
use crate::snapshot::store::Store;
use crate::store::sink::PackSink;

/// What is in a page, by its number less one; zero for one that is zeros.
type Image = Vec<u8>;

fn fill(kind: u8, page: usize, into: &mut [u8]) {
    into.fill(kind);
    if kind > 0 {
        into[..8].copy_from_slice(&(page as u64).to_le_bytes());
    }
}

fn store_with(page_size: u32, image: &Image) -> (Store, Content) {
    let mut store = Store::in_memory(&[], 0).expect("a store");
    let (sink, content) = {
        let mut session = session(&store);
        let content = whole(&mut session, page_size, image, None);
        (session.sink, content)
    };
    let stored = sink.flush().expect("flushed").commit(b"record".to_vec()).expect("stored");
    store.catalog_mut().index_mut().add(&stored);
    (store, content)
}

fn session(store: &Store) -> Session<'_> {
    let sink = PackSink::new(store.objects().clone(), Arc::clone(store.catalog().packs().keys()));
    Session::new(store.catalog(), sink, true)
}

fn whole(session: &mut Session<'_>, page_size: u32, image: &Image, before: Option<&Content>) -> Content {
    let length = page_size as usize;
    let mut at = 0;
    let mut read = |into: &mut [u8]| {
        let count = (into.len() / length).min(image.len() - at);
        for page in into.chunks_exact_mut(length).take(count) {
            fill(image[at], at, page);
            at += 1;
        }
        Ok(count * length)
    };
    session.save(Cut::Pages(page_size), before, &mut read).expect("saved").1
}

/// Saves what makes `new` of `old`, and answers with what came of it and how many chunks were new.
fn replaced(page_size: u32, old: &Image, new: &Image) -> (Content, u64) {
    let (store, before) = store_with(page_size, old);
    let mut session = session(&store);
    let differ = |page: &usize| old.get(*page) != new.get(*page) && (*page < old.len() || new[*page] > 0);
    let changed: Vec<u32> = (0..new.len()).filter(differ).map(|page| page as u32 + 1).collect();
    let mut read = |page: u32, into: &mut [u8]| {
        fill(new[page as usize - 1], page as usize - 1, into);
        Ok(())
    };
    let paged = Paged { content: &before, page_size, pages: old.len() as u32 };
    let saved = session.save_changed(paged, new.len() as u32, &changed, &mut read).expect("saved");
    let (size, content) = saved.expect("the content is sound");
    assert_eq!(size, new.len() as u64 * u64::from(page_size));
    let new_chunks = session.new_chunks;

    let mut other = self::session(&store);
    other.watch();
    assert_eq!(whole(&mut other, page_size, new, Some(&before)), content);
    assert_eq!(other.new_chunks, new_chunks);
    let both: Vec<u32> = changed.into_iter().filter(|page| *page as usize <= old.len()).collect();
    assert_eq!(other.watched(), both);
    (content, new_chunks)
}

#[test]
fn few_pages_and_many() {
    for page_size in [4096, 65_536] {
        for old in [0, 1, 7, 8, 9, 40] {
            for new in [0, 1, 7, 8, 9, 41] {
                let before: Image = (0..old).map(|n| n % 5).collect();
                let mut after: Image = (0..new).map(|n| n % 5).collect();
                replaced(page_size, &before, &after);
                for page in after.iter_mut().step_by(3) {
                    *page = 9;
                }
                let (content, _) = replaced(page_size, &before, &after);
                assert_eq!(matches!(content, Content::Chunks(_)), new <= 8);
            }
        }
    }
}

#[test]
fn several_recipes() {
    let image = |pages: usize, set: &[(usize, u8)]| {
        let mut image = vec![0; pages];
        for (page, kind) in set.iter().filter(|(page, _)| *page < pages) {
            image[*page] = *kind;
        }
        image
    };
    let (all, edge) = (2 * MOST + 100, MOST);
    let old = image(all, &[(0, 1), (edge - 1, 1), (edge, 1), (2 * edge - 1, 1), (2 * edge, 1), (all - 1, 1)]);
    for (pages, set, new_chunks) in [
        (all, vec![(0, 1), (edge - 1, 1), (edge, 2), (2 * edge - 1, 1), (2 * edge, 1), (all - 1, 1)], 1),
        (all, vec![(0, 2), (edge - 1, 2), (edge, 2), (2 * edge - 1, 2), (2 * edge, 2), (all - 1, 2)], 6),
        (all + 1, vec![(0, 1), (edge - 1, 1), (edge, 1), (2 * edge - 1, 1), (2 * edge, 1), (all - 1, 1), (all, 3)], 1),
        (2 * edge, vec![(0, 1), (edge - 1, 1), (edge, 1), (2 * edge - 1, 4)], 1),
        (2 * edge + 1, vec![(0, 1), (edge - 1, 1), (edge, 1), (2 * edge - 1, 1), (2 * edge, 4)], 1),
        (edge, vec![(0, 1), (edge - 1, 1)], 0),
        (edge - 1, vec![(0, 1), (77, 1)], 1),
        (3 * edge + 5, vec![(0, 1), (3 * edge + 4, 1)], 1),
        (5, vec![(0, 1), (1, 1)], 1),
    ] {
        assert_eq!(replaced(512, &old, &image(pages, &set)).1, new_chunks, "{pages} {set:?}");
    }
    replaced(512, &image(5, &[(0, 1)]), &old);
}

#[test]
fn content_that_is_not_as_it_should_be_is_not_built_on() {
    let (store, content) = store_with(4096, &vec![1; 20]);
    let (few, more) = (store_with(4096, &vec![1; 5]).1, store_with(8192, &vec![1; 10]).1);
    let mut read = |_: u32, into: &mut [u8]| {
        into.fill(1);
        Ok(())
    };
    for (content, page_size, pages, is_sound) in [
        (&content, 4096, 20, true),
        (&content, 4096, 19, false),
        (&content, 8192, 20, false),
        (&content, 8192, 10, false),
        (&content, 4096, 5, false),
        (&few, 4096, 5, true),
        (&few, 4096, 6, false),
        (&few, 8192, 5, false),
        // In no store that this session knows.
        (&more, 8192, 10, false),
    ] {
        let before = Paged { content, page_size, pages };
        let saved = session(&store).save_changed(before, pages, &[1], &mut read).expect("no error");
        assert_eq!(saved.is_some(), is_sound, "{page_size} {pages}");
    }
}

/// A page that waits for its delta counts as stored: the next file that has it will not store it.
#[test]
fn what_waits_is_stored_though_its_file_could_not_be_read_to_its_end() {
    let before: Image = (0..3000).map(|n| (n % 250) as u8 + 1).collect();
    let (mut store, content) = store_with(4096, &before);
    let mut page = vec![0; 4096];
    fill(255, 10, &mut page);
    let id = store.catalog().packs().keys().chunk_id(&page);
    let sink = {
        let mut session = session(&store);
        let mut at = 0;
        let mut read = |into: &mut [u8]| {
            if at > 2000 {
                return Err(std::io::Error::other("it cannot be read any further"));
            }
            for page in into.chunks_exact_mut(4096) {
                fill(if at == 10 { 255 } else { before[at] }, at, page);
                at += 1;
            }
            Ok(into.len())
        };
        let saved = session.save(Cut::Pages(4096), Some(&content), &mut read);
        assert!(matches!(saved, Err(Failure::Source(_))), "{saved:?}");
        let mut rest = &page[..];
        let mut read = |into: &mut [u8]| std::io::Read::read(&mut rest, into);
        let (_, other) = session.save(Cut::Pages(4096), None, &mut read).expect("saved");
        assert_eq!((other, session.new_chunks), (Content::Chunks(vec![(4096, id)]), 1));
        session.sink
    };
    let stored = sink.flush().expect("flushed").commit(b"record".to_vec()).expect("stored");
    store.catalog_mut().index_mut().add(&stored);
    assert!(store.catalog().has(id), "the file that could be read lacks its page");
}
