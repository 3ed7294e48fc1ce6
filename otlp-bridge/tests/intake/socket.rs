//! The loader's socket as a file, and who may use it.

use crate::house::{House, Memory, get, settings};
use nix::{
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, Uid, fork, geteuid, seteuid},
};
use otlp_bridge::intake::{IntakeError, open};
use std::{
    fs::{self, Permissions},
    io::{Read as _, Write as _},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

fn no_status() -> otlp_bridge::intake::Status {
    Arc::new(serde_json::Map::new)
}

#[tokio::test]
async fn it_is_there_for_its_group_while_the_bridge_is() {
    let house =
        House::with(|settings| settings.group = Some(nix::unistd::getegid().as_raw())).await;
    let about = fs::symlink_metadata(&house.socket).unwrap();
    assert_eq!(about.mode() & 0o7777, 0o660);
    let left: Vec<_> = fs::read_dir(house.dir.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    house.intake.close().await;
    assert!(!house.socket.exists());
}

#[tokio::test]
async fn the_socket_of_a_bridge_that_died_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    drop(UnixListener::bind(&settings.socket).unwrap());
    // Died before it had its name.
    drop(UnixListener::bind(dir.path().join(".bridge.sock.new")).unwrap());
    let house = House::of(dir, settings).await;
    assert_eq!(get(&house.socket, "/healthz").await.status, 200);
}

#[tokio::test]
async fn a_bridge_that_lives_is_not_replaced() {
    let house = House::new().await;
    let again = settings(house.dir.path());
    let refused = open(again, Arc::<Memory>::default(), no_status())
        .await
        .unwrap_err();
    assert!(matches!(refused, IntakeError::Busy(_)), "{refused}");
    assert_eq!(get(&house.socket, "/healthz").await.status, 200);
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    fs::write(&settings.socket, "mine").unwrap();
    let path = settings.socket.clone();
    let refused = open(settings, Arc::<Memory>::default(), no_status())
        .await
        .unwrap_err();
    assert!(matches!(refused, IntakeError::NotASocket(_)), "{refused}");
    assert_eq!(fs::read_to_string(path).unwrap(), "mine");
}

#[tokio::test]
async fn the_socket_of_a_successor_stays() {
    let house = House::new().await;
    fs::remove_file(&house.socket).unwrap();
    let successor = UnixListener::bind(&house.socket).unwrap();
    house.intake.close().await;
    assert!(house.socket.exists());
    drop(successor);
}

/// What somebody else gets to read when he asks.
fn asked_by_a_stranger(socket: &Path) -> i32 {
    // SAFETY: the child uses nothing of the other threads, and ends without running anything of ours.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => match waitpid(child, None).unwrap() {
            WaitStatus::Exited(_, code) => code,
            other => panic!("{other:?}"),
        },
        ForkResult::Child => {
            let ask = || {
                seteuid(Uid::from_raw(65534)).ok()?;
                let mut stream = UnixStream::connect(socket).ok()?;
                stream
                    .set_read_timeout(Some(Duration::from_secs(10)))
                    .ok()?;
                // It may be closed already.
                let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: b\r\n\r\n");
                let mut answer = [0; 64];
                Some(stream.read(&mut answer).unwrap_or(0))
            };
            let code = match ask() {
                None => 2,
                Some(0) => 0,
                Some(_) => 1,
            };
            // SAFETY: ends the child at once.
            unsafe { nix::libc::_exit(code) }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_users_are_turned_away_although_their_group_may_connect() {
    assert!(
        geteuid().is_root(),
        "this test becomes another user: run it as root"
    );
    let house = House::with(|settings| settings.group = Some(0)).await;
    fs::set_permissions(house.dir.path(), Permissions::from_mode(0o755)).unwrap();
    let socket = house.socket.clone();
    let code = tokio::task::spawn_blocking(move || asked_by_a_stranger(&socket))
        .await
        .unwrap();
    assert_eq!(code, 0, "0: turned away, 1: answered, 2: could not connect");
    assert_eq!(house.intake.counters().counts().strangers, 1);
    assert_eq!(get(&house.socket, "/healthz").await.status, 200);
}
