//! Attaching the programs to a cgroup, and pinning their links.

use super::{
    Engine, KernelError,
    object::{missing, refused},
    query::{self, Target},
};
use abi::{SlotConfig, SlotInfo, programs};
use aya::{
    Ebpf,
    programs::{
        CgroupSkbAttachType, Program,
        links::{CgroupAttachMode, FdLink},
    },
};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
};

/// Where an attachment's pins are.
#[derive(Debug)]
pub struct Attached {
    /// Directory of the links.
    pub links: PathBuf,
}

impl Engine {
    /// Attaches every program to a cgroup and pins the links below `links/NAME`. The cgroup stays
    /// closed (its slot is zero, and zero denies) until [`Engine::enrol`]. What a loader that was killed
    /// half-way has attached to it already is left as it is.
    pub fn attach(&mut self, cgroup: &File, name: &str) -> Result<Attached, KernelError> {
        self.attach_programs(cgroup, name, &programs::CGROUP)
    }

    /// Attaches to a cgroup that lives and is enrolled from the first program on that can deny: the
    /// configuration is there as soon as any program is attached, and `sock_ops` denies nothing.
    pub fn attach_enrolled(
        &mut self,
        cgroup: &File,
        name: &str,
        info: &SlotInfo,
        config: &SlotConfig,
    ) -> Result<Attached, KernelError> {
        self.attach_programs(cgroup, name, &[programs::SOCK_OPS])?;
        self.enrol(info, config)?;
        self.attach(cgroup, name)
    }

    fn attach_programs(
        &mut self,
        cgroup: &File,
        name: &str,
        which: &[&'static str],
    ) -> Result<Attached, KernelError> {
        let links = self.dir.join("links").join(name);
        fs::create_dir_all(&links).map_err(|e| KernelError::pin("create", &links, e))?;
        let looked = cgroup.metadata();
        let id = looked
            .map_err(|e| KernelError::pin("look at the cgroup of", &links, e))?
            .ino();
        for program in which.iter().copied() {
            let path = links.join(program);
            if path.exists() {
                match query::link(&path)?.target {
                    Target::Cgroup { id: at, .. } if at == id => continue,
                    // Its cgroup is gone.
                    Target::Cgroup { id: 0, .. } => {
                        fs::remove_file(&path).map_err(|e| KernelError::pin("remove", &path, e))?;
                    }
                    _ => return Err(KernelError::Elsewhere { path }),
                }
            }
            let link = attach_one(&mut self.ebpf, program, cgroup)?;
            link.pin(&path)
                .map_err(|e| KernelError::pin("pin link", path, io::Error::other(e)))?;
        }
        Ok(Attached { links })
    }
}

/// Attaches one program and hands out its link.
pub(super) fn attach_one(
    ebpf: &mut Ebpf,
    name: &'static str,
    cgroup: &File,
) -> Result<FdLink, KernelError> {
    // Links allow several programs at one place whatever the mode; kernels refuse the others' flags.
    const MODE: CgroupAttachMode = CgroupAttachMode::Single;
    let program = ebpf.program_mut(name).ok_or_else(|| missing(name))?;
    let refused = |e| refused(name, e);
    let no_link = |e: aya::programs::links::LinkError| KernelError::Call {
        what: "the kernel made no link for a cgroup program",
        source: io::Error::other(e),
    };
    macro_rules! link {
        ($p:expr, $id:expr) => {{
            let id = $id.map_err(refused)?;
            let link = $p.take_link(id).map_err(refused)?;
            FdLink::try_from(link).map_err(no_link)
        }};
    }
    match program {
        Program::CgroupSkb(p) if name == programs::EGRESS || name == programs::GUARD => {
            link!(p, p.attach(cgroup, CgroupSkbAttachType::Egress, MODE))
        }
        Program::CgroupSkb(p) => link!(p, p.attach(cgroup, CgroupSkbAttachType::Ingress, MODE)),
        Program::CgroupSock(p) => link!(p, p.attach(cgroup, MODE)),
        Program::CgroupSockAddr(p) => link!(p, p.attach(cgroup, MODE)),
        Program::SockOps(p) => link!(p, p.attach(cgroup, MODE)),
        _ => Err(missing(name)),
    }
}
