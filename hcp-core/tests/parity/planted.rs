//! The test of the test: small cores and bindings, each with one thing planted that must be caught.

use super::binding::Binding;
use super::compare::{Report, compare, parse_reasons};
use super::core_api::{Sort, walk};
use super::source::Files;
use super::{bound_rust, python};

const CORE: &str = "
    pub mod error { pub enum ErrorKind { InvalidInput, Closed } }
    pub mod node {
        use crate::error::ErrorKind;
        pub const MAX_SESSIONS: usize = 4;
        pub struct Node { hidden: u8 }
        impl Node {
            pub fn connect(&self) -> Result<(), ConnectError> { inner() }
            pub(crate) fn inner(&self) {}
        }
        impl std::fmt::Display for Node { fn fmt(&self) {} }
        pub struct Settings { pub port: u16, secret: u8 }
        pub enum Event { Joined, Said { text: String }, Left(u8) }
        pub trait Handler { fn serve(&self); }
        pub enum ConnectError { Refused { code: u32 } }
        impl ConnectError { pub fn kind(&self) -> ErrorKind { ErrorKind::Closed } }
        pub fn import() {}
    }
";

const PYTHON_RUST: &str = r#"
    #[pyclass(name = "Node", frozen)] struct PyNode(core::Node);
    #[pymethods] impl PyNode { fn connect<'py>(&self) {} }
    #[pyclass(frozen, get_all)] struct Settings { port: u16 }
    #[pyclass] enum Event { Joined(), Said { text: String }, #[pyo3(name = "LEFT")] Gone(u8) }
    #[pyfunction] #[pyo3(name = "import_")] fn import_key() {}
    #[pymodule] fn _hcp(m: &Bound<'_, PyModule>) -> PyResult<()> { m.add("MAX_SESSIONS", 4)?; Ok(()) }
"#;

const PYTHON: &str = r#"
from ._hcp import MAX_SESSIONS, Event, Node, Settings, import_

class HcpError(Exception):
    """All errors.

    connect_anonymously: not a member, but text.
    """

class InvalidInputError(HcpError): ...
class ClosedError(HcpError): ...

class Handler(Protocol):
    async def serve(self, stream: Stream) -> None:
        reject = 1
"#;

const FFI: &str = r#"
    #[derive(Debug, thiserror::Error, uniffi::Error)] pub enum HcpError { InvalidInput { message: String }, Closed }
    #[derive(uniffi::Object)] pub struct Node {}
    #[uniffi::export(async_runtime = "tokio")] impl Node { pub async fn connect(&self) {} }
    impl Node { pub fn draft(&self) {} }
    #[derive(Clone, uniffi::Record)] pub struct Settings { pub port: u16 }
    #[uniffi::remote(Enum)] pub enum Event { Joined, Said { text: String }, Left(u8) }
    #[uniffi::export(with_foreign)] pub trait Handler { fn serve(&self); }
    #[uniffi::export] pub fn import() {}
    #[uniffi::export] pub fn max_sessions() -> u32 { 4 }
"#;

fn files(content: &[(&str, &str)]) -> Files {
    content.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn python_binding(rust: &str, python: &str) -> Binding {
    let extension = bound_rust::pyo3(&files(&[("lib.rs", rust)])).unwrap();
    python::package(&files(&[("__init__.py", python)]), extension)
}

fn ffi_binding(rust: &str) -> Binding {
    bound_rust::uniffi(&files(&[("lib.rs", rust)])).unwrap()
}

/// The keys of the items of a core of several files.
fn keys(content: &[(&str, &str)]) -> Vec<String> {
    walk(&files(content)).unwrap().iter().map(|item| item.key()).collect()
}

/// Compares both bindings with a core of one file.
fn reports(core: &str, python: &Binding, ffi: &Binding, reasons: &str) -> [Report; 2] {
    let core = walk(&files(&[("lib.rs", core)])).unwrap();
    let reasons = parse_reasons(reasons).unwrap();
    [compare(&core, python, &reasons), compare(&core, ffi, &reasons)]
}

/// Asserts that both bindings have just these problems with a core.
fn assert_problems(core: &str, reasons: &str, expected: &[&str]) {
    for report in reports(core, &python_binding(PYTHON_RUST, PYTHON), &ffi_binding(FFI), reasons) {
        assert_eq!(report.problems, expected);
    }
}

#[test]
fn complete_bindings_have_no_problem() {
    assert_eq!(
        keys(&[("lib.rs", CORE)]).join(" "),
        "error::ErrorKind error::ErrorKind::Closed error::ErrorKind::InvalidInput node::ConnectError \
         node::ConnectError::Refused node::ConnectError::Refused::code node::ConnectError::kind node::Event \
         node::Event::Joined node::Event::Left node::Event::Said node::Event::Said::text node::Handler \
         node::Handler::serve node::MAX_SESSIONS node::Node node::Node::connect node::Settings node::Settings::port \
         node::import"
    );
    for report in reports(CORE, &python_binding(PYTHON_RUST, PYTHON), &ffi_binding(FFI), "") {
        assert_eq!(report, Report { covered: 20, ..Report::default() });
    }
}

#[test]
fn catches_every_item_of_the_core_that_an_empty_binding_lacks() {
    let [python, ffi] = reports(CORE, &Binding::default(), &Binding::default(), "");
    assert_eq!((python.covered, python.problems.len()), (0, 20));
    assert_eq!(python, ffi);
}

#[test]
fn catches_what_is_added_to_the_core() {
    let cases = [
        ("pub fn connect(", "pub fn reject(&self) {} pub fn connect(", "node::Node::reject"),
        ("Joined,", "Joined, Muted,", "node::Event::Muted"),
        ("text: String", "text: String, size: u8", "node::Event::Said::size"),
        ("pub port: u16,", "pub port: u16, pub host: u8,", "node::Settings::host"),
        ("fn serve(&self);", "fn serve(&self); fn stop(&self) {}", "node::Handler::stop"),
        ("InvalidInput,", "InvalidInput, TimedOut,", "error::ErrorKind::TimedOut"),
        ("pub fn import", "pub async fn export() {} pub fn import", "node::export"),
        ("pub const", "pub const MAX_TEXT: u8 = 1; pub const", "node::MAX_TEXT"),
        ("impl Node {", "impl Node { pub const START: u8 = 1;", "node::Node::START"),
        ("pub struct Node", "pub struct Draft; pub struct Node", "node::Draft"),
    ];
    for (old, new, missing) in cases {
        assert_eq!(CORE.matches(old).count(), 1, "{old} is not unique");
        let expected = format!("missing without a reason: {missing}");
        assert_problems(&CORE.replace(old, new), "", &[&expected]);
        assert_problems(&CORE.replace(old, new), &format!("'{missing}' = 'it comes later'"), &[]);
    }
}

#[test]
fn catches_what_a_binding_loses() {
    let python_cases = [
        ("fn connect<'py>", "fn _connect<'py>", "node::Node::connect"),
        ("name = \"Node\"", "name = \"Knot\"", "node::Node"),
        ("get_all", "eq", "node::Settings::port"),
        ("\"MAX_SESSIONS\"", "\"SESSIONS\"", "node::MAX_SESSIONS"),
        ("\"import_\"", "\"load\"", "node::import"),
        ("text: String", "said: String", "node::Event::Said::text"),
        ("\"LEFT\"", "\"GONE\"", "node::Event::Left"),
        ("#[pyclass] enum", "enum", "node::Event"),
    ];
    let core = walk(&files(&[("lib.rs", CORE)])).unwrap();
    for (old, new, missing) in python_cases {
        let binding = python_binding(&PYTHON_RUST.replace(old, new), PYTHON);
        let problems = compare(&core, &binding, &parse_reasons("").unwrap()).problems;
        assert!(problems.contains(&format!("missing without a reason: {missing}")), "{old}: {problems:?}");
    }
    let python_file_cases = [
        ("def serve", "def attend", "node::Handler::serve"),
        ("ClosedError(HcpError)", "ClosedError(Exception)", "error::ErrorKind::Closed"),
        ("HcpError", "Fault", "node::ConnectError"),
        ("Node, ", "", "node::Node::connect"),
        ("MAX_SESSIONS, ", "", "node::MAX_SESSIONS"),
        (", import_", "", "node::import"),
    ];
    for (old, new, missing) in python_file_cases {
        let binding = python_binding(PYTHON_RUST, &PYTHON.replace(old, new));
        let problems = compare(&core, &binding, &parse_reasons("").unwrap()).problems;
        assert!(problems.contains(&format!("missing without a reason: {missing}")), "{old}: {problems:?}");
    }
    let ffi_cases = [
        ("async fn connect", "async fn dial", "node::Node::connect"),
        ("#[uniffi::export(async_runtime = \"tokio\")] impl", "impl", "node::Node::connect"),
        ("uniffi::Record", "Debug", "node::Settings"),
        ("Joined,", "", "node::Event::Joined"),
        ("Said { text: String },", "", "node::Event::Said"),
        ("text: String", "said: String", "node::Event::Said::text"),
        ("Closed }", "}", "error::ErrorKind::Closed"),
        ("#[uniffi::export] pub fn import", "pub fn import", "node::import"),
        ("(with_foreign)] pub trait Handler", "] pub trait Other", "node::Handler::serve"),
        ("uniffi::Error)", "Clone)", "node::ConnectError"),
    ];
    for (old, new, missing) in ffi_cases {
        let problems = compare(&core, &ffi_binding(&FFI.replace(old, new)), &parse_reasons("").unwrap()).problems;
        assert!(problems.contains(&format!("missing without a reason: {missing}")), "{old}: {problems:?}");
    }
}

#[test]
fn catches_bad_reasons() {
    assert_problems(CORE, "'node::Node' = 'we cannot yet'", &["a stale reason, the binding has it: node::Node"]);
    assert_problems(CORE, "'node' = 'we cannot yet'", &["a stale reason, the binding has it: node"]);
    assert_problems(CORE, "'nod' = 'we cannot yet'", &["a reason for what the core does not have: nod"]);
    assert_problems(
        CORE,
        "'node::Node::leave' = 'we cannot yet'",
        &["a reason for what the core does not have: node::Node::leave"],
    );
    let larger = CORE.replace("Joined,", "Joined, Muted,");
    assert_problems(
        &larger,
        "'node::Event::Muted' = 'not yet'",
        &["the reason for node::Event::Muted has fewer than three words"],
    );
    // The reason of a type that is bound hides no part of it.
    assert_problems(&larger, "'node::Event' = 'we cannot yet'", &["a stale reason, the binding has it: node::Event"]);
    // That of a module counts for all below, and is not stale while something is lacking.
    assert_problems(&larger, "node = 'comes with the next'", &[]);
    assert!(parse_reasons("node = 3").is_err());
    assert!(parse_reasons("[node]\nNode = 'it comes later'").is_err());
}

#[test]
fn follows_modules_re_exports_and_features() {
    let lib = r#"
        mod store;
        pub mod node;
        pub use crate::node::inner::deep as direct;
        #[cfg(feature = "testing")] pub mod testing { pub struct Harness; }
        #[cfg(test)] pub mod tests { pub struct Fixture; }
        #[doc(hidden)] pub mod internal { pub struct Trick; }
    "#;
    let node = r#"
        mod channel; pub(crate) mod inner;
        pub use self::channel::{Channel, Code as Reason};
        pub use super::store::*;
        use self::channel::Private;
        impl Private { pub fn private(&self) {} }
    "#;
    let channel = r#"
        pub struct Channel; pub enum Code { Full } pub struct Private; pub struct NotExported;
        impl super::Channel { pub fn open(&self) {} #[cfg(test)] pub fn poke(&self) {} }
    "#;
    let all = [
        ("lib.rs", lib),
        ("node.rs", node),
        ("node/channel.rs", channel),
        ("node/inner.rs", "pub mod deep { pub fn dive() {} #[cfg(not(test))] pub fn swim() {} }"),
        ("store.rs", "pub struct Store; pub(crate) struct Row; impl Store { pub fn load(&self) {} }"),
    ];
    let expected = "direct::dive direct::swim node::Channel node::Channel::open node::Reason node::Reason::Full \
                    node::Store node::Store::load testing::Harness";
    assert_eq!(keys(&all).join(" "), expected);
    let items = walk(&files(&all)).unwrap();
    let gated: Vec<_> = items.iter().filter(|item| item.features.contains("testing")).map(|item| item.key()).collect();
    assert_eq!(gated, ["testing::Harness"]);
    let report = compare(&items, &Binding::default(), &parse_reasons("").unwrap());
    assert!(report.problems.contains(&"missing without a reason: testing::Harness (feature testing)".to_owned()));
}

#[test]
fn counts_an_item_once_under_its_shortest_path() {
    let core = "pub mod a { pub mod b { pub struct Deep; } } pub use a::b::Deep; pub use self::a::b;";
    assert_eq!(keys(&[("lib.rs", core)]), ["Deep"]);
}

#[test]
fn refuses_what_it_does_not_understand() {
    let cases = [
        "pub use elsewhere::Thing;",
        "make_ids!(A, B);",
        "mod gone;",
        "#[path = \"x.rs\"] mod moved {}",
        "pub union Both { a: u8 }",
        "pub struct S; impl S { methods!(); }",
        "pub extern crate alloc;",
        "impl Nowhere { pub fn lost() {} }",
        "mod a { pub use super::b::X; } mod b { pub use super::a::X; } pub use a::X;",
        "mod a { make_ids!(A); pub struct B; } pub use a::B;",
    ];
    for core in cases {
        assert!(walk(&files(&[("lib.rs", core)])).is_err(), "{core}");
    }
    let undeclared = bound_rust::uniffi(&files(&[("lib.rs", ""), ("a.rs", "#[uniffi::export] fn lost() {}")]));
    assert!(undeclared.unwrap().functions.is_empty());
    assert!(bound_rust::pyo3(&files(&[("lib.rs", "struct A; #[pymethods] impl A {}")])).is_err());
}

#[test]
fn error_types_are_told_by_their_kind() {
    let items = walk(&files(&[("lib.rs", CORE)])).unwrap();
    let errors: Vec<_> = items.iter().filter(|item| item.of_error && item.sort == Sort::Type).collect();
    assert_eq!(errors.iter().map(|item| item.key()).collect::<Vec<_>>(), ["node::ConnectError"]);
}

#[test]
fn a_kind_of_error_must_be_wherever_kinds_are_told_apart() {
    let core = walk(&files(&[("lib.rs", CORE)])).unwrap();
    let missing = |binding: &Binding| compare(&core, binding, &parse_reasons("").unwrap()).problems;
    let expected = ["missing without a reason: error::ErrorKind::Closed"];
    let kinds = "#[derive(uniffi::Enum)] pub enum ErrorKind { InvalidInput }";
    assert_eq!(missing(&ffi_binding(&format!("{FFI} {kinds}"))), expected);
    let kinds = kinds.replace("InvalidInput", "InvalidInput, Closed");
    assert!(missing(&ffi_binding(&format!("{FFI} {kinds}"))).is_empty());
    assert_eq!(missing(&ffi_binding(&format!("{} {kinds}", FFI.replace(", Closed }", "}")))), expected);

    let kinds = "class ErrorKind(StrEnum):\n    INVALID_INPUT = 'invalid input'\n";
    assert_eq!(missing(&python_binding(PYTHON_RUST, &format!("{PYTHON}\n{kinds}"))), expected);
    let kinds = format!("{kinds}    CLOSED = 'closed'\n");
    assert!(missing(&python_binding(PYTHON_RUST, &format!("{PYTHON}\n{kinds}"))).is_empty());
    let fewer = PYTHON.replace("class ClosedError(HcpError): ...", "");
    assert_eq!(missing(&python_binding(PYTHON_RUST, &format!("{fewer}\n{kinds}"))), expected);
}

#[test]
fn reads_what_python_files_define() {
    let text = r#"
"""Module.

class InText: ...
"""
from ._hcp import Node
LIMIT: Final = 3
if LIMIT == 3:
    hidden = 1

@dataclass(frozen=True, slots=True)
class Joined(base.Event, metaclass=Meta):
    """One line."""

    who: str
    _secret: int = 0

    class Inner:
        depth = 1

    @property
    def name(self) -> str:
        """Text
        inside: of it
        """
        local = 1
        self.cached = local
        return self.who

    def __aiter__(self): ...
    async def __anext__(self): ...
    def _private(self): ...

async def connect(): ...
def _inner(): ...
"#;
    let binding = python_binding("", text);
    let members: Vec<_> = binding.types["joined"].members.iter().map(String::as_str).collect();
    assert_eq!(members, ["cached", "inner", "name", "new", "next", "who"]);
    assert!(binding.types["joined"].bases.contains("event"));
    assert_eq!(binding.types["inner"].members.iter().collect::<Vec<_>>(), ["depth"]);
    assert_eq!(binding.functions.iter().collect::<Vec<_>>(), ["connect"]);
    assert_eq!(binding.constants.iter().collect::<Vec<_>>(), ["limit"]);
    assert_eq!(binding.types.len(), 2);
}

#[test]
fn reads_the_other_ways_to_export_from_rust() {
    let rust = r#"
        create_exception!(_hcp, RefusedError, HcpError, "Says no.");
        #[pyclass(extends = HcpError)] struct LostError;
        #[pyclass] struct Reader { #[pyo3(get, name = "size")] length: u8, #[pyo3(get)] done: u8, own: u8 }
        #[pymethods] impl Reader {
            #[new] fn build() -> Self {}
            #[getter] fn get_path(&self) {}
            #[getter(state)] fn current(&self) {}
            #[staticmethod] fn open() {}
            #[pyo3(name = "send", signature = (text, *, limit=None))] fn send_text(&self) {}
            #[classattr] const START: u8 = 0;
            fn __anext__(&self) {}
        }
        #[pymodule] mod _hcp { #[pymodule_export] const MAX_NAME: u8 = 1; #[pyfunction] fn inside() {} }
        #[cfg(test)] #[pyclass] struct OnlyForTests;
    "#;
    let binding = python_binding(rust, "from ._hcp import *");
    let members: Vec<_> = binding.types["reader"].members.iter().map(String::as_str).collect();
    assert_eq!(members, ["done", "new", "next", "open", "path", "send", "size", "start", "state"]);
    assert!(binding.types["refusederror"].bases.contains("hcperror"));
    assert!(binding.types["losterror"].bases.contains("hcperror"));
    assert!(binding.constants.contains("maxname") && binding.functions.contains("inside"));
    assert!(!binding.types.contains_key("onlyfortests"));

    let binding = ffi_binding(
        r#"
        uniffi::custom_type!(OnionAddress, String, { remote });
        #[derive(uniffi::Object)] #[uniffi(name = "Reader")] pub struct FfiReader;
        #[uniffi::export] impl Reader {
            #[uniffi::constructor(name = "open")] pub fn build() -> Self {}
            #[uniffi::method(name = "size")] pub fn length(&self) {}
        }
        #[derive(Record)] pub struct NotOurs { pub a: u8 }
    "#,
    );
    assert!(binding.types.contains_key("onionaddress") && !binding.types.contains_key("notours"));
    assert_eq!(binding.types["reader"].members.iter().collect::<Vec<_>>(), ["open", "size"]);
}
