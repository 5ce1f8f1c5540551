//! What the tests of promises share: routers in folders of their own, agents made of a closure, bytes on a socket, and other programs to be killed.
//!
//! A test names what it needs ([`with_two_routers`], [`each_way`], [`scene`]) and gets it in a runtime of its own. When it ends its routers are shut
//! down, and a socket or lock file that is left then fails it.

pub(crate) mod agents;
pub(crate) mod program;
pub(crate) mod sp;

use std::cell::RefCell;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use vlmessaging::{Addr, Connection, Endpoint, Limits, Msg, NotDelivered, Reason, RequestError, Router, RouterBuilder};

/// Longer than any test takes, so that one that hangs fails.
const HANG: Duration = Duration::from_mins(1);
/// A limit that is never reached where the promise is kept.
pub(crate) const LONG: Duration = Duration::from_secs(15);
/// "At once" is far below this, on a busy machine too.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(3);

/// A folder of its own, and the routers that were started in it.
pub(crate) struct Scene {
    folder: PathBuf,
    routers: RefCell<Vec<Router>>,
}

/// Runs a test with a folder to start routers in.
pub(crate) fn scene(test: impl AsyncFnOnce(&Scene)) {
    let scene = Scene::new();
    run(async {
        test(&scene).await;
        scene.end().await;
    });
}

/// Runs a test with a router that has no sockets.
pub(crate) fn with_router(test: impl AsyncFnOnce(Router)) {
    scene(async |scene| test(scene.start(Router::local()).await).await);
}

/// Runs a test with two routers on one machine.
pub(crate) fn with_two_routers(test: impl AsyncFnOnce(Router, Router)) {
    scene(async |scene| test(scene.machine().await, scene.machine().await).await);
}

/// How an asker and a provider are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// In one router.
    Here,
    /// In two routers on one machine.
    Ipc,
    /// In two routers that reach each other over TCP.
    Tcp,
    /// Over TCP, where the provider cannot dial the asker.
    Undialed,
}

/// An asker's router and a provider's.
pub(crate) struct Pair {
    pub(crate) way: Way,
    pub(crate) asker: Router,
    pub(crate) provider: Router,
}

impl Pair {
    /// An agent of the provider's router, as the asker reaches it.
    pub(crate) fn reach(&self, agent: impl Into<Addr>) -> Addr {
        self.provider.net_addr(number(agent))
    }
}

/// Runs a test once for every way that two agents can be apart.
pub(crate) fn each_way(test: impl AsyncFn(Pair)) {
    for way in [Way::Here, Way::Ipc, Way::Tcp, Way::Undialed] {
        over(way, &test);
    }
}

/// Runs a test for one way that two agents can be apart.
pub(crate) fn over(way: Way, test: impl AsyncFnOnce(Pair)) {
    // Shown where the test fails.
    println!("over {way:?}");
    scene(async |scene| {
        let (asker, provider) = match way {
            Way::Here => {
                let router = scene.start(Router::local()).await;
                (router.clone(), router)
            }
            Way::Ipc => (scene.machine().await, scene.machine().await),
            Way::Tcp => (scene.network().await, scene.network().await),
            Way::Undialed => (scene.start(Router::network().without_hub()).await, scene.network().await),
        };
        test(Pair { way, asker, provider }).await;
    });
}

impl Scene {
    fn new() -> Self {
        static SCENES: AtomicU32 = AtomicU32::new(0);
        let number = SCENES.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("vlm-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self { folder, routers: RefCell::default() }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// An ipc endpoint in the folder.
    pub(crate) fn ipc(&self, name: &str) -> Endpoint {
        Endpoint::from(format!("ipc://{}", self.folder.join(name).display()))
    }

    /// Starts a router here, which is shut down at the end.
    pub(crate) async fn start(&self, builder: RouterBuilder) -> Router {
        let router = builder.folder(&self.folder).start().await.unwrap();
        self.routers.borrow_mut().push(router.clone());
        router
    }

    /// A router of the machine, without hub.
    pub(crate) async fn machine(&self) -> Router {
        self.start(Router::machine().without_hub()).await
    }

    /// A router of the network, without hub.
    pub(crate) async fn network(&self) -> Router {
        self.start(Router::network().without_hub().listen("tcp://127.0.0.1:0")).await
    }

    /// The files in the folder.
    pub(crate) fn files(&self) -> Vec<String> {
        let files = std::fs::read_dir(&self.folder).unwrap();
        files.map(|file| file.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }

    /// Removes what killed programs have left behind.
    pub(crate) fn clear_away(&self) {
        let own: Vec<Endpoint> = self.routers.borrow().iter().flat_map(Router::endpoints).collect();
        let is_own = |file: &String| own.iter().any(|at| at.rest().ends_with(file.trim_end_matches(".lock")));
        for file in self.files().iter().filter(|file| !is_own(file)) {
            std::fs::remove_file(self.folder.join(file)).unwrap();
        }
    }

    async fn end(&self) {
        for router in self.routers.take() {
            router.shutdown().await;
        }
        assert_eq!(self.files(), Vec::<String>::new(), "files outlive their routers");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Runs a future in an actix System of its own.
pub(crate) fn run(test: impl Future<Output = ()>) {
    actix::System::new().block_on(async { tokio::time::timeout(HANG, test).await.expect("the test hangs") });
}

/// The default limits, with some changed.
pub(crate) fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

pub(crate) fn number(agent: impl Into<Addr>) -> u64 {
    agent.into().connection.unwrap()
}

/// The tcp endpoint of a router.
pub(crate) fn net(router: &Router) -> Endpoint {
    router.net_addr(0).net.unwrap()
}

/// Waits until something is so that nobody tells.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + LONG;
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "never so: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits for what must come at once.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, what).await.expect("it never came")
}

/// Asks an adder, which must answer.
pub(crate) async fn assert_serves(conn: &Connection, adder: impl Into<Addr>) {
    let reply = conn.request(adder, "ADD_ONE", 41, LONG).await.unwrap();
    assert_eq!(reply.contents::<i64>(), Ok(42));
}

/// Asks, and is told at once that it was not delivered.
pub(crate) async fn fails_at_once(conn: &Connection, to: impl Into<Addr>) -> NotDelivered {
    let asked = std::time::Instant::now();
    let ended = conn.request(to, "ADD_ONE", 41, LONG).await;
    assert!(asked.elapsed() < AT_ONCE, "told after {:?}", asked.elapsed());
    failure(ended)
}

/// Why a request was not delivered, or not sent.
pub(crate) fn failure(ended: Result<Msg, RequestError>) -> NotDelivered {
    match ended {
        Err(RequestError::NotDelivered(failure)) => failure,
        Err(RequestError::NotSent(error)) => NotDelivered {
            to: error.to.clone(),
            subject: error.subject.clone(),
            reason: error.reason,
            place: "here".into(),
        },
        other => panic!("it should have failed: {other:?}"),
    }
}

/// The reason that a message from outside reports.
pub(crate) fn reason(report: &Msg) -> Reason {
    report.not_delivered().unwrap_or_else(|| panic!("no report: {report:?}")).reason
}
