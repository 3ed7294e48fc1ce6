//! The maps of a set of another version as bytes, and how these become our values.

use crate::kernel::{
    KernelError, Pins, sys,
    types::{Translation, Types},
};
use abi::maps;
use aya::maps::MapData;
use std::{io, os::fd::AsFd as _};

/// One of its maps, and how many bytes its keys and values have.
pub(super) struct Raw {
    pub(super) map: MapData,
    key: usize,
    pub(super) value: usize,
    name: &'static str,
}

impl Raw {
    pub(super) fn open(pins: &Pins, name: &'static str) -> Result<Self, KernelError> {
        let path = pins.map_path(name);
        let info = sys::map_info(&path).map_err(|e| KernelError::pin("look at map", path, e))?;
        Ok(Self {
            map: pins.map(name)?,
            key: info.key_size as usize,
            value: info.value_size as usize,
            name,
        })
    }

    pub(super) fn keys(&self) -> Result<Vec<Vec<u8>>, KernelError> {
        sys::map_keys(self.map.fd().as_fd(), self.key)
            .map_err(|e| KernelError::map("read", self.name, e))
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KernelError> {
        let mut value = vec![0; self.value];
        if key.len() != self.key {
            return Ok(None);
        }
        match sys::map_lookup(self.map.fd().as_fd(), key, &mut value) {
            Ok(()) => Ok(Some(value)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(KernelError::map("read", self.name, e)),
        }
    }

    pub(super) fn set(&self, key: &[u8], value: &[u8]) -> Result<(), KernelError> {
        sys::map_update(self.map.fd().as_fd(), key, value)
            .map_err(|e| KernelError::map("write", self.name, e))
    }
}

/// How its values become ours.
pub(super) struct Layouts {
    pub(super) types: Types,
    pub(super) info: Translation,
    pub(super) config: Translation,
    pub(super) metrics: Translation,
    pub(super) flow: Translation,
    pub(super) tail: Translation,
    pub(super) event: Translation,
    pub(super) fold_key: Translation,
    pub(super) fold_row: Translation,
    pub(super) name: Translation,
    pub(super) name_key: Translation,
    pub(super) addr: Translation,
    pub(super) addr_key: Translation,
    pub(super) rule: Translation,
    /// Our key in its layout.
    pub(super) name_key_there: Translation,
}

impl Layouts {
    pub(super) fn new(theirs: &Pins, ours: &Pins) -> Result<Self, KernelError> {
        let path = theirs.map_path(maps::METRICS);
        let types = Types::of_pin(&path)?;
        let own = Types::of_pin(&ours.map_path(maps::METRICS))?;
        let both = |name: &'static str| {
            Translation::new(&types, &own, name).ok_or_else(|| KernelError::Layout {
                name,
                path: path.clone(),
            })
        };
        Ok(Self {
            info: both("SlotInfo")?,
            config: both("SlotConfig")?,
            metrics: both("SlotMetrics")?,
            flow: both("Flow")?,
            tail: both("Tail")?,
            event: both("FlowEvent")?,
            fold_key: both("FoldKey")?,
            fold_row: both("FoldRow")?,
            name: both("LearnedName")?,
            name_key: both("LearnedNameKey")?,
            addr: both("LearnedAddr")?,
            addr_key: both("LearnedAddrKey")?,
            rule: both("RuleText")?,
            name_key_there: Translation::new(&own, &types, "LearnedNameKey").ok_or_else(|| {
                KernelError::Layout {
                    name: "LearnedNameKey",
                    path: path.clone(),
                }
            })?,
            types,
        })
    }

    pub(super) fn field(
        &self,
        of: &'static str,
        field: &'static str,
        pins: &Pins,
    ) -> Result<usize, KernelError> {
        self.types
            .field(of, field)
            .ok_or_else(|| KernelError::Layout {
                name: field,
                path: pins.dir().to_owned(),
            })
    }
}
