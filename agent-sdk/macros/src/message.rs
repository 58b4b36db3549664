//! What `#[message]` makes of a type: the item itself with the rkyv derives, `impl Typed`, `impl Message`.
//!
//! All paths go through `::shoal_agent`, so that an agent's author depends on that crate alone.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Error, Fields, Index, Member, Result, Type};

/// Expands the attribute. Of a wrong type the item is kept as it is, beside the error, so that the author reads one
/// error and not ten.
pub fn expand(arguments: &TokenStream, item: TokenStream) -> TokenStream {
    match try_expand(arguments, item.clone()) {
        Ok(expanded) => expanded,
        Err(error) => {
            let error = error.into_compile_error();
            quote! { #error #item }
        }
    }
}

fn try_expand(arguments: &TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !arguments.is_empty() {
        return Err(Error::new_spanned(arguments, "`#[message]` takes no arguments"));
    }
    let input: DeriveInput = syn::parse2(item)?;
    refuse_generics(&input)?;
    refuse_rkyv_attributes(&input.attrs)?;
    let parts = match &input.data {
        Data::Struct(data) => fields_of_struct(&input.ident, &data.fields)?,
        Data::Enum(data) => variants_of_enum(&input.ident, data)?,
        Data::Union(data) => {
            let what = "a union cannot be a message: its bytes do not say which field they are; use an enum";
            return Err(Error::new(data.union_token.span(), what));
        }
    };
    Ok(generate(&input, &parts))
}

fn generate(input: &DeriveInput, parts: &TokenStream) -> TokenStream {
    let ident = &input.ident;
    let name = name_of(ident);
    quote! {
        #[derive(::shoal_agent::rkyv::Archive, ::shoal_agent::rkyv::Serialize, ::shoal_agent::rkyv::Deserialize)]
        #[rkyv(crate = ::shoal_agent::rkyv, attr(allow(dead_code)))]
        #input

        #[automatically_derived]
        impl ::shoal_agent::__private::Typed for #ident {
            const FINGERPRINT: ::shoal_agent::__private::Fingerprint = {
                let hash = ::shoal_agent::__private::FingerprintBuilder::of::<#ident>(#name);
                #parts
                hash.finish()
            };
        }

        #[automatically_derived]
        impl ::shoal_agent::__private::Message for #ident {
            const NAME: &'static str = #name;
        }

        const _: () = ::core::assert!(
            ::core::mem::align_of::<<#ident as ::shoal_agent::rkyv::Archive>::Archived>()
                <= ::shoal_agent::__private::MESSAGE_ALIGN,
            "the payload of a frame is aligned to 16 bytes",
        );
    }
}

/// A struct's fields are hashed with name, type and place in the archived struct.
fn fields_of_struct(ident: &Ident, fields: &Fields) -> Result<TokenStream> {
    let kind = kind_of(fields);
    let mut parts = quote! { let hash = hash.text(#kind); };
    for (member, field) in fields.members().zip(fields) {
        refuse_rkyv_attributes(&field.attrs)?;
        refuse_recursion(ident, &field.ty)?;
        refuse_shared(field.ty.to_token_stream())?;
        let (conditions, name, ty) = (conditions(&field.attrs), name_of_member(&member), &field.ty);
        parts.extend(quote! {
            #(#conditions)*
            let hash = hash.field::<#ty>(
                #name,
                ::core::mem::offset_of!(<#ident as ::shoal_agent::rkyv::Archive>::Archived, #member),
            );
        });
    }
    Ok(parts)
}

/// An enum's variants are hashed with name, position, discriminant and fields. Where a field lies in an archived
/// variant cannot be asked for in stable Rust; it follows from the order, and from the size and alignment of each.
fn variants_of_enum(ident: &Ident, data: &syn::DataEnum) -> Result<TokenStream> {
    if data.variants.is_empty() {
        return Err(Error::new_spanned(ident, "an enum without variants has no value that could be sent"));
    }
    let mut parts = quote! { let hash = hash.text("enum"); };
    for (position, variant) in data.variants.iter().enumerate() {
        refuse_rkyv_attributes(&variant.attrs)?;
        let (of_variant, name) = (conditions(&variant.attrs), name_of(&variant.ident));
        let (position, kind) = (position as u64, kind_of(&variant.fields));
        // rkyv takes over a written discriminant; it is an expression, of which the words are hashed.
        let discriminant =
            variant.discriminant.as_ref().map(|(_, value)| value.to_token_stream().to_string());
        let discriminant = discriminant.unwrap_or_default();
        let mut of_fields = TokenStream::new();
        for (member, field) in variant.fields.members().zip(&variant.fields) {
            refuse_rkyv_attributes(&field.attrs)?;
            refuse_recursion(ident, &field.ty)?;
            refuse_shared(field.ty.to_token_stream())?;
            let (of_field, field_name, ty) = (conditions(&field.attrs), name_of_member(&member), &field.ty);
            of_fields.extend(quote! {
                #(#of_field)*
                let hash = hash.text(#field_name).part::<#ty>();
            });
        }
        parts.extend(quote! {
            #(#of_variant)*
            let hash = {
                let hash = hash.text(#name).number(#position).text(#discriminant).text(#kind);
                #of_fields
                hash
            };
        });
    }
    Ok(parts)
}

fn kind_of(fields: &Fields) -> &'static str {
    match fields {
        Fields::Named(_) => "named",
        Fields::Unnamed(_) => "tuple",
        Fields::Unit => "unit",
    }
}

/// The name as it is meant: `r#type` and `type` are one.
fn name_of(ident: &Ident) -> String {
    let name = ident.to_string();
    name.strip_prefix("r#").unwrap_or(&name).to_owned()
}

fn name_of_member(member: &Member) -> String {
    match member {
        Member::Named(ident) => name_of(ident),
        Member::Unnamed(Index { index, .. }) => index.to_string(),
    }
}

/// The `#[cfg]`s of a field: what is not compiled is not hashed.
fn conditions(attributes: &[Attribute]) -> Vec<&Attribute> {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).collect()
}

fn refuse_generics(input: &DeriveInput) -> Result<()> {
    if input.generics.params.is_empty() && input.generics.where_clause.is_none() {
        return Ok(());
    }
    let ident = &input.ident;
    let what = format!(
        "a message is a concrete type: `{ident}` must have no type parameters, lifetimes or where clause; \
         give each type that is sent a struct of its own"
    );
    let span = if input.generics.params.is_empty() { ident.span() } else { input.generics.span() };
    Err(Error::new(span, what))
}

fn refuse_rkyv_attributes(attributes: &[Attribute]) -> Result<()> {
    match attributes.iter().find(|attribute| attribute.path().is_ident("rkyv")) {
        None => Ok(()),
        Some(attribute) => {
            let what = "`#[rkyv(..)]` changes the archived form without changing the fingerprint; \
                        a message has none: send a type that says what is archived";
            Err(Error::new_spanned(attribute, what))
        }
    }
}

/// Refuses a field whose type names the message itself. What it cannot see (two messages that contain each other, an
/// alias) the compiler reports as a cycle.
fn refuse_recursion(ident: &Ident, ty: &Type) -> Result<()> {
    let Some(span) = mentions(ty.to_token_stream(), ident) else { return Ok(()) };
    let what = format!(
        "a message cannot contain itself: the depth of its archive would have no bound, and a hostile one would \
         exhaust its reader's stack; send `{ident}` as a flat Vec of nodes that name each other by index"
    );
    Err(Error::new(span, what))
}

/// Refuses by name what would otherwise be a page of rkyv's unmet bounds. Only with type arguments: an author may well
/// have a message called `Arc`.
fn refuse_shared(tokens: TokenStream) -> Result<()> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) => refuse_shared(group.stream())?,
            TokenTree::Ident(found) if matches!(tokens.get(at + 1), Some(TokenTree::Punct(p)) if p.as_char() == '<') =>
            {
                let instead = match found.to_string().as_str() {
                    "Rc" | "Arc" => "a Box, or the value itself",
                    "HashMap" | "BTreeMap" => "a Vec of pairs",
                    "HashSet" | "BTreeSet" => "a Vec",
                    _ => continue,
                };
                return Err(Error::new(
                    found.span(),
                    format!("a message cannot contain `{found}`: send {instead}"),
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Finds `ident` or `Self` as the last word of a path, wherever it stands: not in `other::Tree`, not in `Tree::Item`.
fn mentions(tokens: TokenStream, ident: &Ident) -> Option<Span> {
    let is_colon =
        |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Punct(p)) if p.as_char() == ':');
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    tokens.iter().enumerate().find_map(|(at, token)| match token {
        TokenTree::Group(group) => mentions(group.stream(), ident),
        TokenTree::Ident(found) => {
            let in_path = at > 0 && is_colon(tokens.get(at - 1)) || is_colon(tokens.get(at + 1));
            (!in_path && (found == ident || found == "Self")).then(|| found.span())
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(item: TokenStream) -> String {
        try_expand(&TokenStream::new(), item).expect_err("this was accepted").to_string()
    }

    fn is_accepted(item: TokenStream) -> bool {
        try_expand(&TokenStream::new(), item).is_ok()
    }

    #[test]
    fn a_generic_message_is_refused_and_told_what_to_do() {
        for item in [
            quote! { struct T<A> { a: A } },
            quote! { struct T<'a>(&'a str); },
            quote! { enum T<const N: usize> { A([u8; N]) } },
        ] {
            let refusal = refusal(item);
            assert!(
                refusal.contains("a message is a concrete type: `T` must have no type parameters"),
                "{refusal}"
            );
        }
    }

    #[test]
    fn a_message_that_contains_itself_is_refused() {
        for item in [
            quote! { struct Tree { children: Vec<Tree> } },
            quote! { struct Tree(Option<Box<Self>>); },
            quote! { enum Tree { Leaf, Node(Box<Tree>, u8) } },
            quote! { struct Tree { pair: (u8, [Box<Tree>; 2]) } },
        ] {
            assert!(refusal(item).contains("a message cannot contain itself"));
        }
    }

    #[test]
    fn shared_pointers_and_maps_are_refused_with_what_to_send_instead() {
        let shared = refusal(quote! { struct T { a: Option<std::sync::Arc<u8>> } });
        assert_eq!(shared, "a message cannot contain `Arc`: send a Box, or the value itself");
        let map = refusal(quote! { enum T { A(Vec<(u8, HashMap<u8, u8>)>) } });
        assert_eq!(map, "a message cannot contain `HashMap`: send a Vec of pairs");
        assert!(is_accepted(quote! { struct T { curve: Arc } }));
    }

    #[test]
    fn a_type_of_the_same_name_elsewhere_is_no_recursion() {
        assert!(is_accepted(quote! { struct Tree { other: forest::Tree, id: u8 } }));
    }

    #[test]
    fn a_union_an_empty_enum_and_arguments_are_refused() {
        assert!(refusal(quote! { union T { a: u8, b: i8 } }).contains("use an enum"));
        assert!(refusal(quote! { enum T {} }).contains("no value that could be sent"));
        let refusal =
            try_expand(&quote! { name = "x" }, quote! { struct T; }).expect_err("arguments").to_string();
        assert_eq!(refusal, "`#[message]` takes no arguments");
    }

    #[test]
    fn attributes_of_rkyv_are_refused_wherever_they_stand() {
        for item in [
            quote! { #[rkyv(derive(Debug))] struct T; },
            quote! { struct T { #[rkyv(with = Niche)] a: Option<Box<u8>> } },
            quote! { enum T { #[rkyv(other)] A } },
            quote! { enum T { A(#[rkyv(omit_bounds)] u8) } },
        ] {
            assert!(refusal(item).contains("without changing the fingerprint"));
        }
    }

    #[test]
    fn a_refused_item_is_kept_so_that_one_error_does_not_become_ten() {
        let expanded = expand(&TokenStream::new(), quote! { struct T<A> { a: A } }).to_string();
        assert!(expanded.contains("compile_error") && expanded.contains("struct T < A >"), "{expanded}");
    }

    #[test]
    fn a_conditional_field_is_hashed_under_its_condition() {
        let expanded = expand(&TokenStream::new(), quote! { struct T { #[cfg(unix)] a: u8 } }).to_string();
        assert!(expanded.contains("# [cfg (unix)] let hash"), "{expanded}");
    }
}
