//! The file: opened, written in transactions, opened again after the disk has failed. The only place that
//! touches it.

use super::{
    books::Books,
    error::SpoolError,
    tables::{self, FORMAT, FORMAT_NOW, Tables},
};
use redb::{Builder, Database, DatabaseError, Error, ReadTransaction, ReadableTable as _};
use std::{
    fs::{self, File},
    io::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

/// Memory for pages of the store.
const CACHE: usize = 32 << 20;
/// Name of the store in the spool's directory.
const FILE: &str = "spool.redb";
/// Name of the file that only holds room.
const RESERVE: &str = "reserve";

/// The store of a spool.
pub(super) struct Store {
    path: PathBuf,
    reserve: PathBuf,
    reserve_bytes: usize,
    /// Nothing after the disk has failed, until it could be opened again.
    db: RwLock<Option<Database>>,
}

impl Store {
    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the store of a directory, or makes it. Reads all of it: a damaged one is found here and not
    /// in the middle of the night. `reserve_bytes`: room that is set apart, see [`Self::free_reserve`].
    pub(super) fn open(dir: &Path, reserve_bytes: usize) -> Result<Self, SpoolError> {
        fs::create_dir_all(dir).map_err(|source| SpoolError::Directory {
            path: dir.to_owned(),
            source: Arc::new(source),
        })?;
        let store = Self::at(dir, reserve_bytes);
        let made = |b: &mut Builder, path: &Path| b.set_check_integrity_on_open(true).create(path);
        let mut opened = store.begin(made);
        if let Err(SpoolError::DiskFull(_)) = opened {
            store.free_reserve();
            opened = store.begin(made);
        }
        opened?;
        store.fill_reserve();
        Ok(store)
    }

    /// Opens the store of a directory if there is one; sets no room apart.
    pub(super) fn open_existing(dir: &Path) -> Result<Self, SpoolError> {
        let store = Self::at(dir, 0);
        store.begin(|b, path| b.set_check_integrity_on_open(true).open(path))?;
        Ok(store)
    }

    fn at(dir: &Path, reserve_bytes: usize) -> Self {
        Self {
            path: dir.join(FILE),
            reserve: dir.join(RESERVE),
            reserve_bytes,
            db: RwLock::new(None),
        }
    }

    fn begin(
        &self,
        open: impl Fn(&mut Builder, &Path) -> Result<Database, DatabaseError>,
    ) -> Result<(), SpoolError> {
        self.reopen_with(open)?;
        let found = self.write(|tables| {
            let found = tables.meta.get(FORMAT)?.map(|f| f.value());
            if found.is_none() {
                tables.meta.insert(FORMAT, FORMAT_NOW)?;
            }
            Ok(found.unwrap_or(FORMAT_NOW))
        })?;
        if found == FORMAT_NOW {
            Ok(())
        } else {
            Err(SpoolError::Format {
                path: self.path.clone(),
                found,
            })
        }
    }

    /// Opens the file again: a store that has met an error of the disk takes nothing any more. What was
    /// committed is there, what was not is gone.
    pub(super) fn reopen(&self) -> Result<(), SpoolError> {
        self.reopen_with(|b, path| b.open(path))
    }

    fn reopen_with(
        &self,
        open: impl Fn(&mut Builder, &Path) -> Result<Database, DatabaseError>,
    ) -> Result<(), SpoolError> {
        let mut db = self.db.write().unwrap_or_else(PoisonError::into_inner);
        // The lock on the file goes with the old one.
        *db = None;
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE);
        // Its documentation says that it may panic on a file that somebody has altered.
        let opened = catch_unwind(AssertUnwindSafe(|| open(&mut builder, &self.path)));
        let damaged = |_| SpoolError::Damaged {
            path: self.path.clone(),
            why: "its pages contradict each other".to_owned(),
        };
        let opened = opened.map_err(damaged)?;
        *db = Some(opened.map_err(|e| SpoolError::of_open(&self.path, e))?);
        Ok(())
    }

    /// Changes what is in it, all or nothing. When this returns, it is on the disk.
    pub(super) fn write<T>(
        &self,
        change: impl FnOnce(&mut Tables<'_>) -> Result<T, Error>,
    ) -> Result<T, SpoolError> {
        self.with(|db| {
            let mut txn = db.begin_write()?;
            // Two syncs a commit: no content of a record, whoever chose it, can make half a commit look
            // whole, and after a crash the store is there at once.
            txn.set_quick_repair(true);
            let done = {
                let mut tables = Tables::open(&txn)?;
                change(&mut tables)?
            };
            txn.commit()?;
            Ok(done)
        })
    }

    /// Reads the last commit.
    pub(super) fn read<T>(
        &self,
        look: impl FnOnce(&ReadTransaction) -> Result<T, Error>,
    ) -> Result<T, SpoolError> {
        self.with(|db| look(&tables::view(db)?))
    }

    /// The sums, as they are on the disk.
    pub(super) fn books(&self) -> Result<Books, SpoolError> {
        self.read(tables::load)
    }

    fn with<T>(&self, f: impl FnOnce(&Database) -> Result<T, Error>) -> Result<T, SpoolError> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        match db.as_ref() {
            Some(db) => f(db).map_err(|e| SpoolError::of(&self.path, e)),
            None => Err(SpoolError::of(&self.path, Error::PreviousIo)),
        }
    }

    /// Bytes of the file.
    pub(super) fn file_bytes(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |m| m.len())
    }

    /// Closes the file.
    pub(super) fn close(&self) {
        *self.db.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Gives up the room that was set apart. Even throwing records away takes room: the store never
    /// writes over what is committed.
    pub(super) fn free_reserve(&self) {
        // Not there is as good.
        let _ = fs::remove_file(&self.reserve);
    }

    /// Sets room apart again. Without it the spool works, but may not get out of a full disk by itself.
    pub(super) fn fill_reserve(&self) {
        let there = fs::metadata(&self.reserve).map_or(0, |m| m.len());
        if there == self.reserve_bytes as u64 {
            return;
        }
        let mut seed = 0x9e37_79b9_u32;
        // Noise: a file system that compresses would not keep room for zeros.
        let noise = (0..self.reserve_bytes).map(|_| {
            seed ^= seed << 13;
            seed ^= seed >> 17;
            seed ^= seed << 5;
            seed.to_le_bytes()[0]
        });
        let noise: Vec<u8> = noise.collect();
        let filled = File::create(&self.reserve).and_then(|mut f| {
            f.write_all(&noise)?;
            f.sync_all()
        });
        if filled.is_err() {
            self.free_reserve();
        }
    }
}
