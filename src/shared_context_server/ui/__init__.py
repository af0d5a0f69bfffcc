"""The dashboard at /ui: pages for the people who run agents.

A page is a function of a PageRequest that returns a Response, with its address as a `Page`, in the
module of its subject; `routes.PAGES` lists them all. It reads through services, as the caller who is
signed in, and calls tools for what it changes (`PageRequest.call`). It renders a template that extends
base.html and has the parts of components.html as `ui`.

A page is kept up to date by a stream: `live.change_stream(path, kinds)` is its route, the template gets
its address as `live`, and each part that is to be asked for anew has

    id="NAME" hx-get="{{ current }}" hx-trigger="refresh-live from:body" hx-select="#NAME"
    hx-swap="outerHTML"

Links and fields in such a part have an id, by which htmx gives them the focus back.

Every text that a template prints is made printable: what would turn its direction is shown as an escape.
The value of a field, which a browser sends back, needs the filter `exact`; names and titles that may look
empty, such as keys and purposes, need `named`. The policy forbids inline scripts and styles: no `style=`, no `on…=`, no `hx-on`.
"""
