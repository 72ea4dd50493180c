//! The public API of the core, from its source.
//!
//! Counted are structs with their named public fields, enums with their variants and the variants' named fields, traits
//! with their methods, functions, constants, and public functions and constants of inherent `impl`s; each once, under its
//! shortest public path. Not counted are trait impls, type aliases (they name what is counted already) and fields without
//! a name (`NodeId(pub [u8; 32])` is whatever suits the other language). What the walk does not understand is an error.

use std::collections::{BTreeMap, BTreeSet};

use syn::{Fields, ImplItem, Item, ReturnType, TraitItem, Type};

use super::source::{
    Files, Modules, Names, Target, attributes, defined_name, features_of, flatten, is_public, name, only_for_tests,
};

/// What an item is, and with that where a binding may have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    Type,
    Function,
    Constant,
    /// A field or a method of a type or trait.
    Member,
    /// A constant of a type or trait.
    MemberConstant,
    Variant,
    VariantField,
}

/// Something public of the core.
#[derive(Clone, Debug)]
pub(crate) struct ApiItem {
    pub(crate) path: Names,
    pub(crate) sort: Sort,
    /// Part of, or itself, an error of an operation, which is told by its `kind() -> ErrorKind`.
    pub(crate) of_error: bool,
    pub(crate) features: BTreeSet<String>,
}

impl ApiItem {
    /// `node::Node::connect`.
    pub(crate) fn key(&self) -> String {
        self.path.join("::")
    }
}

/// All public items, in the order of their paths.
pub(crate) fn walk(files: &Files) -> Result<Vec<ApiItem>, String> {
    let modules = Modules::parse(files)?;
    let mut walk = Walk { modules: &modules, found: BTreeMap::new(), visited: BTreeSet::new() };
    walk.module(&[], &[])?;
    let used: BTreeSet<&Names> = walk.visited.iter().chain(walk.found.keys()).map(|(module, _)| module).collect();
    for module in used {
        let mut items = modules.module(module).items.iter();
        if items.any(|item| matches!(item, Item::Macro(item) if !item.mac.path.is_ident("macro_rules"))) {
            return Err(format!("a macro makes items of `{}`, which the walk cannot see", module.join("::")));
        }
    }
    let inherent = inherent_impls(&modules)?;
    let mut items = Vec::new();
    for ((module, name), mut paths) in walk.found {
        paths.sort_by_key(|path| (path.len(), path.clone()));
        let path = paths.swap_remove(0);
        let features = modules.module(&module).features.clone();
        let defined = modules.module(&module).items.iter().filter(|item| defined_name(item).as_ref() == Some(&name));
        for item in defined {
            let features = &features | &features_of(attributes(item));
            let members = inherent.get(&(module.clone(), name.clone())).map_or(&[][..], Vec::as_slice);
            describe(item, &path, &features, members, &mut items)?;
        }
    }
    items.sort_by(|a, b| a.path.cmp(&b.path));
    items.dedup_by(|a, b| a.path == b.path && a.sort == b.sort);
    Ok(items)
}

/// Collects where definitions can be reached from outside.
struct Walk<'a> {
    modules: &'a Modules,
    found: BTreeMap<(Names, String), Vec<Names>>,
    visited: BTreeSet<(Names, String)>,
}

impl Walk<'_> {
    /// Takes the public items of `module`, which users see at `public`.
    fn module(&mut self, module: &[String], public: &[String]) -> Result<(), String> {
        if !self.visited.insert((module.to_vec(), public.join("::"))) {
            return Ok(());
        }
        for item in &self.modules.module(module).items {
            match item {
                _ if is_hidden(item) => {}
                Item::Mod(item) if is_public(&item.vis) => {
                    let own = name(&item.ident);
                    self.module(&[module, std::slice::from_ref(&own)].concat(), &[public, &[own]].concat())?;
                }
                Item::Use(item) if is_public(&item.vis) => {
                    for import in flatten(&item.tree) {
                        let target = self.modules.resolve(module, &import.path);
                        let at = [public, import.name.as_slice()].concat();
                        match target {
                            Some(Target::Module(inside)) => self.module(&inside, &at)?,
                            Some(Target::Item(inside, name)) => self.found.entry((inside, name)).or_default().push(at),
                            None => return Err(format!("cannot follow `pub use {}`", import.path.join("::"))),
                        }
                    }
                }
                Item::ExternCrate(item) if is_public(&item.vis) => {
                    return Err(format!("`pub extern crate {}` is not understood", item.ident));
                }
                _ => {
                    if let Some(name) = defined_name(item).filter(|_| is_public_definition(item)) {
                        let at = [public, std::slice::from_ref(&name)].concat();
                        self.found.entry((module.to_vec(), name)).or_default().push(at);
                    }
                }
            }
        }
        Ok(())
    }
}

/// A public part of an inherent `impl`.
struct InherentMember {
    name: String,
    sort: Sort,
    features: BTreeSet<String>,
    is_kind: bool,
}

/// The public parts of all inherent `impl`s, by the definition of their type.
fn inherent_impls(modules: &Modules) -> Result<BTreeMap<(Names, String), Vec<InherentMember>>, String> {
    let mut found: BTreeMap<_, Vec<InherentMember>> = BTreeMap::new();
    for (module, content) in modules.iter() {
        for item in &content.items {
            let Item::Impl(block) = item else { continue };
            if block.trait_.is_some() {
                continue;
            }
            let path = match &*block.self_ty {
                Type::Path(path) => path.path.segments.iter().map(|segment| name(&segment.ident)).collect::<Names>(),
                _ => return Err(format!("an impl in `{}` is of no named type", module.join("::"))),
            };
            let Some(Target::Item(home, name_there)) = modules.resolve(module, &path) else {
                return Err(format!("cannot find the type of `impl {}` in `{}`", path.join("::"), module.join("::")));
            };
            let gates = &content.features | &features_of(&block.attrs);
            let members = found.entry((home, name_there)).or_default();
            for member in &block.items {
                match member {
                    ImplItem::Fn(function) if is_public(&function.vis) && !is_left_out(&function.attrs) => {
                        members.push(InherentMember {
                            name: name(&function.sig.ident),
                            sort: Sort::Member,
                            features: &gates | &features_of(&function.attrs),
                            is_kind: function.sig.ident == "kind" && returns_error_kind(&function.sig.output),
                        });
                    }
                    ImplItem::Const(constant) if is_public(&constant.vis) && !is_left_out(&constant.attrs) => {
                        members.push(InherentMember {
                            name: name(&constant.ident),
                            sort: Sort::MemberConstant,
                            features: &gates | &features_of(&constant.attrs),
                            is_kind: false,
                        });
                    }
                    ImplItem::Macro(_) => return Err(format!("a macro makes members of `{}`", path.join("::"))),
                    _ => {}
                }
            }
        }
    }
    Ok(found)
}

/// Adds an item and its parts.
fn describe(
    item: &Item,
    path: &[String],
    features: &BTreeSet<String>,
    members: &[InherentMember],
    into: &mut Vec<ApiItem>,
) -> Result<(), String> {
    let of_error = members.iter().any(|member| member.is_kind);
    let mut add = |below: &[&syn::Ident], sort| {
        let path = path.iter().cloned().chain(below.iter().map(|ident| name(ident))).collect();
        into.push(ApiItem { path, sort, of_error, features: features.clone() });
    };
    match item {
        Item::Struct(item) => {
            add(&[], Sort::Type);
            for field in &item.fields {
                if let (Some(ident), true) = (&field.ident, is_public(&field.vis) && !is_left_out(&field.attrs)) {
                    add(&[ident], Sort::Member);
                }
            }
        }
        Item::Enum(item) => {
            add(&[], Sort::Type);
            for variant in item.variants.iter().filter(|variant| !is_left_out(&variant.attrs)) {
                add(&[&variant.ident], Sort::Variant);
                if let Fields::Named(fields) = &variant.fields {
                    for ident in fields.named.iter().filter_map(|field| field.ident.as_ref()) {
                        add(&[&variant.ident, ident], Sort::VariantField);
                    }
                }
            }
        }
        Item::Trait(item) => {
            add(&[], Sort::Type);
            for member in &item.items {
                match member {
                    TraitItem::Fn(function) if !is_left_out(&function.attrs) => {
                        add(&[&function.sig.ident], Sort::Member);
                    }
                    TraitItem::Const(constant) if !is_left_out(&constant.attrs) => {
                        add(&[&constant.ident], Sort::MemberConstant);
                    }
                    TraitItem::Macro(_) => return Err(format!("a macro makes members of `{}`", path.join("::"))),
                    _ => {}
                }
            }
        }
        Item::Fn(_) => add(&[], Sort::Function),
        Item::Const(_) | Item::Static(_) => add(&[], Sort::Constant),
        // An alias; what is public of it is counted where it is defined.
        Item::Type(_) => {}
        _ => return Err(format!("`{}` is of a sort that is not understood", path.join("::"))),
    }
    for member in members {
        let path = [path, std::slice::from_ref(&member.name)].concat();
        into.push(ApiItem { path, sort: member.sort, of_error, features: features | &member.features });
    }
    Ok(())
}

fn is_left_out(attributes: &[syn::Attribute]) -> bool {
    let mut documentation = attributes.iter().filter(|attribute| attribute.path().is_ident("doc"));
    let is_hidden = |attribute: &syn::Attribute| {
        attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string().contains("hidden"))
    };
    only_for_tests(attributes) || documentation.any(is_hidden)
}

fn is_hidden(item: &Item) -> bool {
    is_left_out(attributes(item))
}

fn is_public_definition(item: &Item) -> bool {
    match item {
        Item::Const(item) => is_public(&item.vis),
        Item::Enum(item) => is_public(&item.vis),
        Item::Fn(item) => is_public(&item.vis),
        Item::Static(item) => is_public(&item.vis),
        Item::Struct(item) => is_public(&item.vis),
        Item::Trait(item) => is_public(&item.vis),
        Item::TraitAlias(item) => is_public(&item.vis),
        Item::Type(item) => is_public(&item.vis),
        Item::Union(item) => is_public(&item.vis),
        _ => false,
    }
}

fn returns_error_kind(output: &ReturnType) -> bool {
    let ReturnType::Type(_, output) = output else { return false };
    matches!(&**output, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "ErrorKind"))
}
