//! What hcp-py's and hcp-ffi's Rust code exports, by the attributes of PyO3 and UniFFI.

use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, Fields, ImplItem, Item, Lit, Meta, Stmt, Token, TraitItem, Type};

use super::binding::{Binding, BoundType, fold};
use super::source::{Files, Modules, name};

/// Reads the extension module of hcp-py.
pub(crate) fn pyo3(files: &Files) -> Result<Binding, String> {
    let mut binding = Binding::default();
    let items = all_items(files)?;
    for item in &items {
        match item {
            Item::Struct(item) if has(&item.attrs, "pyclass") => {
                let class = binding.add_type(&python_name(&item.attrs, "pyclass", &name(&item.ident)));
                class.bases.extend(value(&item.attrs, "pyclass", "extends").map(|base| fold(&base)));
                let all = ["get_all", "set_all"].iter().any(|word| flag(&item.attrs, "pyclass", word));
                for field in &item.fields {
                    let Some(ident) = &field.ident else { continue };
                    if all || ["get", "set"].iter().any(|word| flag(&field.attrs, "pyo3", word)) {
                        class.members.insert(fold(&python_name(&field.attrs, "pyo3", &name(ident))));
                    }
                }
            }
            Item::Enum(item) if has(&item.attrs, "pyclass") => {
                let class = binding.add_type(&python_name(&item.attrs, "pyclass", &name(&item.ident)));
                for variant in &item.variants {
                    let variant_name = python_name(&variant.attrs, "pyo3", &name(&variant.ident));
                    add_variant(class, &variant_name, &variant.fields);
                }
            }
            Item::Impl(block) if has(&block.attrs, "pymethods") => {
                let class = binding.add_type(&class_of(&items, &block.self_ty)?);
                for member in &block.items {
                    match member {
                        ImplItem::Fn(function) if has(&function.attrs, "new") => {
                            class.members.insert("new".to_owned());
                        }
                        ImplItem::Fn(function) => {
                            let own = name(&function.sig.ident);
                            let stripped = if has(&function.attrs, "getter") { own.strip_prefix("get_") } else { None };
                            let own = word_of(&function.attrs, "getter")
                                .unwrap_or_else(|| python_name(&function.attrs, "pyo3", stripped.unwrap_or(&own)));
                            class.members.extend(public_in_python(&own));
                        }
                        ImplItem::Const(constant) if has(&constant.attrs, "classattr") => {
                            let own = python_name(&constant.attrs, "pyo3", &name(&constant.ident));
                            class.members.insert(fold(&own));
                        }
                        _ => {}
                    }
                }
            }
            Item::Fn(function) if has(&function.attrs, "pyfunction") => {
                let own = python_name(&function.attrs, "pyo3", &name(&function.sig.ident));
                binding.functions.extend(public_in_python(&own));
            }
            Item::Const(constant) if has(&constant.attrs, "pymodule_export") => {
                let own = python_name(&constant.attrs, "pyo3", &name(&constant.ident));
                binding.constants.insert(fold(&own));
            }
            Item::Macro(item) if ends_in(&item.mac.path, "create_exception") => {
                let parse = Punctuated::<Expr, Token![,]>::parse_terminated;
                let arguments =
                    item.mac.parse_body_with(parse).map_err(|error| format!("create_exception: {error}"))?;
                let names: Vec<String> = arguments.iter().filter_map(last_name).collect();
                let [_, own, base, ..] = names.as_slice() else {
                    return Err("create_exception! takes a module, a name and a base".to_owned());
                };
                binding.add_type(own).bases.insert(fold(base));
            }
            _ => {}
        }
    }
    for text in files.values() {
        binding.constants.extend(added_names(text).map(|name| fold(&name)));
    }
    Ok(binding)
}

/// The names in `module.add("NAME", …)`.
fn added_names(text: &str) -> impl Iterator<Item = String> {
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let calls: Vec<String> = code.split(".add(").skip(1).map(str::to_owned).collect();
    calls.into_iter().filter_map(|call| Some(call.trim_start().strip_prefix('"')?.split_once('"')?.0.to_owned()))
}

/// The class in Python of a type for which methods are written.
fn class_of(items: &[Item], of: &Type) -> Result<String, String> {
    let Type::Path(path) = of else { return Err("#[pymethods] of no named type".to_owned()) };
    let wanted = path.path.segments.last().map(|last| name(&last.ident)).unwrap_or_default();
    let attributes = items.iter().find_map(|item| match item {
        Item::Struct(item) if item.ident == wanted => Some(&item.attrs),
        Item::Enum(item) if item.ident == wanted => Some(&item.attrs),
        _ => None,
    });
    let attributes = attributes.filter(|attributes| has(attributes, "pyclass"));
    Ok(python_name(
        attributes.ok_or_else(|| format!("{wanted} has #[pymethods] and is no #[pyclass]"))?,
        "pyclass",
        &wanted,
    ))
}

/// Reads hcp-ffi.
pub(crate) fn uniffi(files: &Files) -> Result<Binding, String> {
    let mut binding = Binding::default();
    for item in &all_items(files)? {
        match item {
            Item::Struct(item) if is_exported_type(&item.attrs) => {
                let renamed = value(&item.attrs, "uniffi", "name").unwrap_or_else(|| name(&item.ident));
                let record = binding.add_type(&renamed);
                if !derives(&item.attrs, "Object") {
                    // A record is built from its fields.
                    record.members.insert("new".to_owned());
                    let fields = item.fields.iter().filter_map(|field| field.ident.as_ref());
                    record.members.extend(fields.map(|ident| fold(&name(ident))));
                }
            }
            Item::Enum(item) if is_exported_type(&item.attrs) => {
                let renamed = value(&item.attrs, "uniffi", "name").unwrap_or_else(|| name(&item.ident));
                let exported = binding.add_type(&renamed);
                for variant in &item.variants {
                    add_variant(exported, &name(&variant.ident), &variant.fields);
                }
            }
            Item::Impl(block) if has(&block.attrs, "export") => {
                let Type::Path(path) = &*block.self_ty else { return Err("an exported impl of no named type".into()) };
                let own = path.path.segments.last().map(|last| name(&last.ident)).unwrap_or_default();
                let object = binding.add_type(&own);
                for member in &block.items {
                    let ImplItem::Fn(function) = member else { continue };
                    let own = name(&function.sig.ident);
                    let renamed = ["constructor", "method", "uniffi"]
                        .iter()
                        .find_map(|attribute| value(&function.attrs, attribute, "name"));
                    object.members.insert(fold(&renamed.unwrap_or(own)));
                }
            }
            Item::Trait(item) if has(&item.attrs, "export") => {
                let renamed = value(&item.attrs, "export", "name").unwrap_or_else(|| name(&item.ident));
                let interface = binding.add_type(&renamed);
                for member in &item.items {
                    if let TraitItem::Fn(function) = member {
                        interface.members.insert(fold(&name(&function.sig.ident)));
                    }
                }
            }
            Item::Fn(function) if has(&function.attrs, "export") => {
                let renamed = value(&function.attrs, "export", "name").unwrap_or_else(|| name(&function.sig.ident));
                binding.functions.insert(fold(&renamed));
            }
            Item::Macro(item)
                if ["custom_type", "custom_newtype"].iter().any(|macro_name| ends_in(&item.mac.path, macro_name)) =>
            {
                let tokens = item.mac.tokens.to_string();
                let own = tokens.split(',').next().unwrap_or_default();
                binding.add_type(own.rsplit(':').next().unwrap_or(own).trim());
            }
            _ => {}
        }
    }
    Ok(binding)
}

fn is_exported_type(attributes: &[Attribute]) -> bool {
    has(attributes, "remote") || ["Object", "Record", "Enum", "Error"].iter().any(|which| derives(attributes, which))
}

fn add_variant(to: &mut BoundType, variant: &str, fields: &Fields) {
    to.members.insert(fold(variant));
    let fields = fields.iter().filter_map(|field| field.ident.as_ref());
    to.variants.entry(fold(variant)).or_default().extend(fields.map(|ident| fold(&name(ident))));
}

/// The items of all modules and of the functions in them, without what only tests see.
fn all_items(files: &Files) -> Result<Vec<Item>, String> {
    let mut all = Vec::new();
    for (_, module) in Modules::parse(files)?.iter() {
        for item in &module.items {
            if let Item::Fn(function) = item {
                let inside = function.block.stmts.iter();
                all.extend(
                    inside.filter_map(|line| if let Stmt::Item(item) = line { Some(item.clone()) } else { None }),
                );
            }
            all.push(item.clone());
        }
    }
    Ok(all)
}

/// A name as Python users see it: `None` for private ones.
pub(crate) fn public_in_python(own: &str) -> Option<String> {
    match own {
        "__init__" | "__new__" => Some("new".to_owned()),
        "__anext__" | "__next__" => Some("next".to_owned()),
        "__iter__" => Some("iter".to_owned()),
        _ if own.starts_with('_') => None,
        _ => Some(fold(own)),
    }
}

/// Whether there is an attribute whose path ends in `last`.
fn has(attributes: &[Attribute], last: &str) -> bool {
    attributes.iter().any(|attribute| ends_in(attribute.path(), last))
}

fn ends_in(path: &syn::Path, last: &str) -> bool {
    path.segments.last().is_some_and(|segment| segment.ident == last)
}

/// What stands in the brackets of the attributes whose path ends in `last`, as far as it has the usual form.
fn arguments(attributes: &[Attribute], last: &str) -> Vec<Meta> {
    let matching = attributes.iter().filter(|attribute| ends_in(attribute.path(), last));
    let lists = matching.filter_map(|attribute| attribute.meta.require_list().ok());
    let parse = |tokens: &str| syn::parse::Parser::parse_str(Punctuated::<Meta, Token![,]>::parse_terminated, tokens);
    lists
        .flat_map(|list| {
            // A `signature = (self, *, name)` is no Rust expression; it is always the last argument.
            let tokens = list.tokens.to_string();
            parse(&tokens)
                .or_else(|_| parse(tokens.split("signature").next().unwrap_or_default()))
                .into_iter()
                .flatten()
        })
        .collect()
}

fn flag(attributes: &[Attribute], last: &str, word: &str) -> bool {
    arguments(attributes, last).iter().any(|argument| argument.path().is_ident(word))
}

/// The text, or the last name of the path, in `#[last(key = …)]`.
fn value(attributes: &[Attribute], last: &str, key: &str) -> Option<String> {
    arguments(attributes, last).iter().find_map(|argument| match argument {
        Meta::NameValue(pair) if pair.path.is_ident(key) => last_name(&pair.value),
        _ => None,
    })
}

/// The only word in `#[last(word)]`.
fn word_of(attributes: &[Attribute], last: &str) -> Option<String> {
    arguments(attributes, last).iter().find_map(|argument| argument.path().get_ident().map(name))
}

fn last_name(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Str(text) => Some(text.value()),
            _ => None,
        },
        Expr::Path(path) => path.path.segments.last().map(|last| name(&last.ident)),
        _ => None,
    }
}

/// The name in `#[attribute(name = "…")]` or `#[pyo3(name = "…")]`, or the item's own.
fn python_name(attributes: &[Attribute], attribute: &str, own: &str) -> String {
    [attribute, "pyo3"].iter().find_map(|last| value(attributes, last, "name")).unwrap_or_else(|| own.to_owned())
}

fn derives(attributes: &[Attribute], which: &str) -> bool {
    let derives = attributes.iter().filter(|attribute| attribute.path().is_ident("derive"));
    let paths = derives
        .filter_map(|attribute| attribute.parse_args_with(Punctuated::<syn::Path, Token![,]>::parse_terminated).ok());
    paths
        .flatten()
        .any(|path| path.segments.first().is_some_and(|first| first.ident == "uniffi") && ends_in(&path, which))
}
