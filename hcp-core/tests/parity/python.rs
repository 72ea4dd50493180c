//! The Python package around the extension module of hcp-py: what it lets through, and what its files define, by their
//! lines: names at the top level, and names in classes.

use std::collections::BTreeSet;

use super::binding::{Binding, fold};
use super::bound_rust::public_in_python;
use super::source::Files;

/// Takes from the extension module what the package names, and adds what the package defines itself.
pub(crate) fn package(files: &Files, mut extension: Binding) -> Binding {
    let public = files.iter().filter(|(file, _)| *file == "__init__.py" || !file.starts_with('_'));
    let lines: Vec<&str> = public.flat_map(|(_, text)| code_lines(text)).collect();
    if !lines.iter().any(|line| line.starts_with("from ") && line.ends_with(" import *")) {
        let words = lines.iter().flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'));
        // The keyword is no mention of `import_`.
        let words: BTreeSet<String> = words.filter(|word| *word != "import").map(fold).collect();
        extension.types.retain(|name, _| words.contains(name));
        extension.functions.retain(|name| words.contains(name));
        extension.constants.retain(|name| words.contains(name));
    }
    for text in files.values() {
        add_file(text, &mut extension);
    }
    extension
}

/// A class whose body is being read.
struct Class {
    name: String,
    indent: usize,
    /// The indent of its members; known from the first line of its body.
    body: Option<usize>,
}

fn add_file(text: &str, binding: &mut Binding) {
    let mut classes: Vec<Class> = Vec::new();
    let mut decorators = Vec::new();
    for line in code_lines(text) {
        let statement = line.trim_start();
        let indent = line.len() - statement.len();
        while classes.last().is_some_and(|class| indent <= class.indent) {
            classes.pop();
        }
        if let Some(class) = classes.last_mut() {
            class.body.get_or_insert(indent);
        }
        if statement.starts_with('@') {
            decorators.push(statement.to_owned());
            continue;
        }
        let decorators = std::mem::take(&mut decorators);
        let at_member = classes.last().is_some_and(|class| class.body == Some(indent));
        let at_top = classes.is_empty() && indent == 0;
        if let Some(rest) = statement.strip_prefix("class ").filter(|_| at_member || at_top) {
            let name = leading_name(rest).to_owned();
            if let Some(outer) = classes.last() {
                binding.add_type(&outer.name.clone()).members.extend(public_in_python(&name));
            }
            if !name.starts_with('_') {
                let class = binding.add_type(&name);
                let bases = rest[name.len()..].strip_prefix('(').and_then(|bases| bases.split_once(')'));
                let bases = bases.map_or("", |(bases, _)| bases).split(',');
                let bases = bases.map(|base| base.trim().rsplit('.').next().unwrap_or_default());
                class.bases.extend(bases.filter(|base| !base.is_empty() && !base.contains('=')).map(fold));
                if decorators.iter().any(|decorator| decorator.contains("dataclass")) {
                    class.members.insert("new".to_owned());
                }
            }
            classes.push(Class { name, indent, body: None });
            continue;
        }
        let function = statement.strip_prefix("async ").unwrap_or(statement).strip_prefix("def ").map(leading_name);
        let assigned = assigned_name(statement);
        match classes.last() {
            Some(class) if at_member => {
                let members = [function, assigned].into_iter().flatten().filter_map(public_in_python);
                binding.add_type(&class.name.clone()).members.extend(members);
            }
            // `self.kind = …` in a method.
            Some(class) => {
                let attribute = statement.strip_prefix("self.").and_then(assigned_name).and_then(public_in_python);
                binding.add_type(&class.name.clone()).members.extend(attribute);
            }
            None if at_top => {
                binding.functions.extend(function.and_then(public_in_python));
                binding.constants.extend(assigned.and_then(public_in_python));
            }
            None => {}
        }
    }
}

/// The lines outside of texts in triple quotes and comments.
fn code_lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut quote: Option<&str> = None;
    for line in text.lines() {
        let begins_inside = quote.is_some();
        let mut rest = line;
        loop {
            match quote {
                Some(mark) => match rest.split_once(mark) {
                    Some((_, after)) => (quote, rest) = (None, after),
                    None => break,
                },
                None => {
                    let found = ["\"\"\"", "'''"].into_iter().filter_map(|mark| Some((rest.find(mark)?, mark))).min();
                    let Some((at, mark)) = found else { break };
                    (quote, rest) = (Some(mark), &rest[at + mark.len()..]);
                }
            }
        }
        let statement = line.trim_start();
        if !begins_inside && !statement.is_empty() && !statement.starts_with('#') {
            lines.push(line);
        }
    }
    lines
}

fn leading_name(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// The `x` of `x = …`, `x: T` and `x: T = …`.
fn assigned_name(statement: &str) -> Option<&str> {
    let name = leading_name(statement);
    let rest = statement[name.len()..].trim_start();
    let assigns = rest.starts_with(':') && rest.len() > 1 || rest.starts_with('=') && !rest.starts_with("==");
    (assigns && !name.is_empty()).then_some(name)
}
