// The dashboard's own script: local times, copy buttons, the menu on phones, and live updates.
"use strict";

(() => {
  const root = document.documentElement;
  root.classList.add("scripted");

  // ---- times: in the reader's zone, with UTC as the title that the server has written

  const steps = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
  const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
  const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });
  const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

  function ago(moment) {
    const seconds = (moment - Date.now()) / 1000;
    if (Math.abs(seconds) < 5) return "now";
    const [unit, size] = steps.find(([, length]) => Math.abs(seconds) >= length) || steps[3];
    return relative.format(Math.trunc(seconds / size), unit);
  }

  function showTimes(within) {
    for (const element of within.querySelectorAll("time[data-time]")) {
      const moment = new Date(element.dateTime);
      if (Number.isNaN(moment.getTime())) continue;
      const kind = element.dataset.time;
      const isToday = moment.toDateString() === new Date().toDateString();
      element.textContent =
        kind === "ago" ? ago(moment) : kind === "full" ? full.format(moment) : isToday ? clock.format(moment) : day.format(moment);
    }
  }

  setInterval(() => { if (!document.hidden) showTimes(document); }, 10000);

  // ---- small parts

  function toast(text) {
    const place = document.getElementById("toasts");
    if (!place) return;
    const element = document.createElement("div");
    element.className = "toast";
    element.textContent = text;
    const foot = document.querySelector(".log-foot");
    const button = document.querySelector("[data-new]:not([hidden])");
    place.style.bottom = 16 + (foot ? foot.offsetHeight : 0) + (button ? button.offsetHeight + 8 : 0) + "px";
    place.append(element);
    setTimeout(() => element.remove(), 5000);
  }

  async function copy(button) {
    const text = button.dataset.copy;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea"); // without TLS there is no clipboard
      area.value = text;
      area.className = "visually-hidden";
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.dataset.copied = "";
    toast("Copied");
    setTimeout(() => delete button.dataset.copied, 1500);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy]");
    if (button) copy(button);
  });

  function prepareMenu() {
    const button = document.querySelector("[data-menu]");
    if (!button) return;
    const menu = document.getElementById(button.getAttribute("aria-controls"));
    button.hidden = false;
    const set = (isOpen) => {
      button.setAttribute("aria-expanded", String(isOpen));
      menu.toggleAttribute("data-open", isOpen);
    };
    button.addEventListener("click", () => set(button.getAttribute("aria-expanded") !== "true"));
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && button.getAttribute("aria-expanded") === "true") {
        set(false);
        button.focus();
      }
    });
  }

  // "/" goes to the search field of the page.
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, textarea, select, [contenteditable]")) return;
    const field = document.querySelector("input[type=search]");
    if (field) {
      event.preventDefault();
      field.focus();
      field.select();
    }
  });

  // ---- live updates
  //
  // The element with data-live names the stream, and shows its state. Each "refresh" of the stream
  // becomes the event "refresh-live" on the body, which parts of the page name in hx-trigger. Other
  // events are given to those who listen to "live:NAME". A hidden tab has no stream; the id of the last
  // event is where the next stream begins.

  const REFRESH_MS = 3000;
  const RETRY_MS = [1000, 2000, 5000, 10000, 30000];

  class Live {
    constructor(element) {
      this.element = element;
      this.failures = 0;
      this.lastId = null;
      this.isEnded = false;
      this.wasOpen = false;
      document.addEventListener("visibilitychange", () => (document.hidden ? this.close() : this.open()));
      window.addEventListener("pagehide", () => this.close());
      window.addEventListener("pageshow", (event) => event.persisted && this.open());
      this.open();
    }

    show(state, text) {
      this.element.dataset.state = state;
      const place = this.element.querySelector("[data-live-text]");
      if (place.textContent !== text) place.textContent = text;
    }

    open() {
      if (document.hidden || this.source || this.isEnded) return;
      clearTimeout(this.timer);
      const address = new URL(this.element.dataset.live, location.href);
      if (this.lastId !== null) address.searchParams.set("after", this.lastId);
      const source = (this.source = new EventSource(address));
      source.addEventListener("open", () => {
        this.failures = 0;
        this.show("live", "Live");
        if (this.wasOpen) this.refresh(); // something may have changed meanwhile
        this.wasOpen = true;
      });
      source.addEventListener("error", () => {
        // The browser connects again by itself, but not after an answer such as 401 or 429.
        this.show("broken", "Reconnecting");
        if (source.readyState !== EventSource.CLOSED || this.source !== source) return;
        this.close();
        const wait = RETRY_MS[Math.min(this.failures++, RETRY_MS.length - 1)];
        this.timer = setTimeout(() => this.openUnlessSignedOut(), wait);
      });
      source.addEventListener("refresh", () => this.refresh());
      source.addEventListener("ended", (event) => this.end(event.data || "Ended"));
      for (const name of (this.element.dataset.liveEvents || "").split(" ").filter(Boolean)) {
        source.addEventListener(name, (event) => {
          if (event.lastEventId) this.lastId = event.lastEventId;
          document.dispatchEvent(new CustomEvent("live:" + name, { detail: event.data }));
          this.refresh();
        });
      }
    }

    end(text) {
      this.isEnded = true;
      this.close();
      this.show("broken", text);
      showEnd(text);
      if (text === "Signed out") toast("You are signed out. Load the page again to sign in.");
    }

    // A page of somebody who is not signed in any more leads to the sign-in.
    async openUnlessSignedOut() {
      const answer = await fetch(location.href, { method: "HEAD", redirect: "manual" }).catch(() => null);
      if (answer && answer.type === "opaqueredirect") {
        this.end("Signed out");
      } else if (answer && answer.status === 404) {
        this.end("Deleted");
      } else {
        this.open();
      }
    }

    // At once, and then again after a while if more has happened meanwhile. Not while the reader has
    // selected text, which would be lost with the part of the page that it is in.
    refresh() {
      if (this.refreshing) {
        this.isStale = true;
        return;
      }
      if (!document.getSelection().isCollapsed) {
        this.refreshing = setTimeout(() => {
          this.refreshing = null;
          this.refresh();
        }, REFRESH_MS);
        return;
      }
      this.refreshing = setTimeout(() => {
        this.refreshing = null;
        if (this.isStale) this.refresh();
      }, REFRESH_MS);
      this.isStale = false;
      document.body.dispatchEvent(new CustomEvent("refresh-live", { bubbles: true }));
    }

    close() {
      clearTimeout(this.timer);
      if (this.source) this.source.close();
      this.source = null;
    }
  }

  // What has ended under a page that is open: says so, and turns off what does not work any more.
  function showEnd(text) {
    const notice = document.querySelector('[data-ended="' + text + '"]');
    if (!notice) return;
    notice.hidden = false;
    const status = document.querySelector("[data-session-status] .badge");
    if (status) {
      status.textContent = text.toLowerCase();
      status.className = "badge badge-neutral";
    }
    for (const link of document.querySelectorAll("[data-until]")) {
      if (text === "Deleted" || link.dataset.until === text) link.hidden = true;
    }
    turnOff(document.getElementById("post"));
  }

  function turnOff(form) {
    if (!form) return;
    for (const field of form.elements) {
      if (field.tagName === "TEXTAREA") field.readOnly = true; // its text can still be copied
      else field.disabled = true;
    }
  }

  // ---- what is written and not sent yet
  //
  // The fields that data-draft-fields names are kept in the tab, for this person and what data-draft names,
  // until they are sent: loading the page again or having to sign in loses nothing.

  const draftName = (form) => "scs-draft " + document.body.dataset.person + " " + form.dataset.draft;
  const draftFields = (form) => form.dataset.draftFields.split(" ").map((name) => form.elements[name]).filter(Boolean);
  const valueOf = (field) => (field.type === "checkbox" ? field.checked : field.value);

  function keepDraft(form) {
    const values = draftFields(form).map((field) => [field.name, valueOf(field)]);
    try {
      sessionStorage.setItem(draftName(form), JSON.stringify(values));
    } catch {
      // The tab keeps nothing, or not so much.
    }
  }

  function dropDraft(form) {
    sessionStorage.removeItem(draftName(form));
  }

  function restoreDraft(form) {
    const kept = sessionStorage.getItem(draftName(form));
    if (kept === null) return;
    let isOther = false;
    for (const [name, value] of JSON.parse(kept)) {
      const field = form.elements[name];
      if (!field || valueOf(field) === value) continue;
      isOther = true;
      if (field.type === "checkbox") field.checked = value;
      else field.value = value;
    }
    const note = form.querySelector("[data-draft-note]");
    if (note) note.hidden = !isOther;
    const answered = form.elements.reply_to;
    if (answered && answered.value) {
      form.querySelector("[data-reply-name]").textContent = "message " + answered.value;
      form.querySelector(".reply-note").hidden = false;
    }
  }

  document.addEventListener("input", (event) => {
    const form = event.target.form;
    if (form && form.dataset.draft) keepDraft(form);
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-draft-drop]");
    if (!button) return;
    dropDraft(button.form);
    button.form.reset();
    button.closest("[data-draft-note]").hidden = true;
  });
  document.addEventListener("htmx:beforeOnLoad", (event) => {
    const { elt, xhr } = event.detail;
    if (!elt.dataset?.draft || xhr.status >= 400) return;
    const isSent = xhr.getResponseHeader("HX-Redirect") || /data-sent=/.test(xhr.responseText);
    if (isSent) dropDraft(elt);
  });
  document.addEventListener("submit", (event) => {
    if (!event.target.matches("[data-sign-out]")) return;
    for (const name of Object.keys(sessionStorage)) if (name.startsWith("scs-draft ")) sessionStorage.removeItem(name);
  });

  // ---- the log of a session
  //
  // Messages are only ever added at the end, so nothing moves. While the log is paused they are kept
  // aside; while the reader has scrolled up they are added out of sight. In both cases a button counts
  // them.

  const MAX_KEPT = 1000; // messages on the page, and as many aside: then the newest are asked for anew

  class Log {
    constructor(element) {
      this.element = element;
      this.pause = document.querySelector("[data-pause]");
      this.more = document.querySelector("[data-new]");
      this.aside = [];
      this.unseen = 0;
      this.own = 0; // the seq of the newest message that was posted here
      this.isPaused = false;
      this.last = this.findLast();
      this.pause.hidden = false;
      this.pause.addEventListener("click", () => this.setPaused(!this.isPaused));
      this.more.addEventListener("click", () => this.goOn());
      window.addEventListener("scroll", () => this.noteScroll(), { passive: true });
      document.addEventListener("live:message", (event) => this.add(event.detail));
      document.addEventListener("htmx:afterSettle", () => this.noteOwn());
      if (!location.hash) this.toEnd();
    }

    findLast() {
      const all = this.element.querySelectorAll(".message");
      return all.length ? Number(all[all.length - 1].dataset.seq) : 0;
    }

    isAtEnd() {
      return window.innerHeight + window.scrollY >= root.scrollHeight - 60;
    }

    toEnd() {
      window.scrollTo({ top: root.scrollHeight, behavior: "instant" });
    }

    add(html) {
      if (this.isPaused) {
        this.aside.push(html);
        if (this.aside.length > MAX_KEPT) this.aside.shift();
        this.count(1);
        return;
      }
      const wasAtEnd = this.isAtEnd();
      if (!this.append(html)) return;
      if (wasAtEnd || this.last <= this.own) {
        while (this.element.querySelectorAll(".message").length > MAX_KEPT) this.element.querySelector(".message").remove();
        this.toEnd();
      } else {
        this.count(1);
      }
    }

    // Whoever posts is led to the end, where the message is.
    noteOwn() {
      const sent = Number(document.querySelector("[data-sent]")?.dataset.sent || 0);
      if (sent <= this.own) return;
      this.own = sent;
      if (this.isPaused) return;
      this.count(-this.unseen);
      this.toEnd();
    }

    // A message may come twice after a reconnection: it is added once.
    append(html) {
      const place = document.createElement("template");
      place.innerHTML = html;
      const message = place.content.querySelector(".message");
      if (!message || Number(message.dataset.seq) <= this.last) return false;
      this.last = Number(message.dataset.seq);
      this.element.append(message);
      document.querySelector("[data-log-empty]")?.remove();
      showTimes(message);
      window.htmx.process(message);
      return true;
    }

    count(number) {
      this.unseen += number;
      this.more.hidden = this.unseen === 0;
      this.more.querySelector("[data-new-text]").textContent = this.unseen + " new";
    }

    setPaused(isPaused) {
      this.isPaused = isPaused;
      this.pause.setAttribute("aria-pressed", String(isPaused));
      this.pause.querySelector("span").textContent = isPaused ? "Paused" : "Pause";
      const live = document.querySelector("[data-live]");
      live.dataset.held = isPaused ? "true" : "false";
      if (!isPaused) this.release();
    }

    release() {
      const kept = this.aside.splice(0);
      if (kept.length >= MAX_KEPT) return location.reload();
      kept.forEach((html) => this.append(html));
    }

    goOn() {
      if (this.isPaused) this.setPaused(false);
      this.count(-this.unseen);
      this.toEnd();
      this.element.focus({ preventScroll: true });
    }

    noteScroll() {
      if (!this.isPaused && this.unseen && this.isAtEnd()) this.count(-this.unseen);
    }
  }

  // Older messages come in above what is read, which stays where it is.
  let heightBefore = 0;
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.detail.target.id === "older") heightBefore = root.scrollHeight - window.scrollY;
  });
  document.addEventListener("htmx:afterSettle", () => {
    if (!heightBefore) return;
    window.scrollTo({ top: root.scrollHeight - heightBefore, behavior: "instant" });
    heightBefore = 0;
  });

  document.addEventListener("click", (event) => {
    const reply = event.target.closest("[data-reply]");
    const form = document.getElementById("post");
    if (reply && form) {
      event.preventDefault();
      form.elements.reply_to.value = reply.dataset.reply;
      form.querySelector("[data-reply-name]").textContent = "#" + reply.dataset.replySeq;
      form.querySelector(".reply-note").hidden = false;
      form.elements.content.focus();
    }
    if (event.target.closest("[data-reply-cancel]")) {
      form.elements.reply_to.value = "";
      form.querySelector(".reply-note").hidden = true;
    }
    const jump = event.target.closest("[data-jump]");
    if (jump && document.getElementById(jump.dataset.jump)) {
      event.preventDefault();
      location.hash = jump.dataset.jump;
    }
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") for (const menu of document.querySelectorAll("details.menu[open]")) menu.open = false;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.id === "post-content") event.target.form.requestSubmit();
  });

  // What is folded away asks for nothing until it is opened.
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.detail.elt.closest("details:not([open])")) event.preventDefault();
  });
  document.addEventListener(
    "toggle",
    (event) => {
      if (event.target.open && event.target.querySelector("[hx-get]")) document.body.dispatchEvent(new CustomEvent("refresh-live"));
    },
    true,
  );

  // Filters that are not used do not stand in the address.
  document.addEventListener("submit", (event) => {
    if (!event.target.matches("form[data-tidy]")) return;
    for (const field of event.target.elements) if (field.name && !field.value) field.disabled = true;
  });
  window.addEventListener("pageshow", () => {
    for (const field of document.querySelectorAll("form[data-tidy] :disabled")) field.disabled = false;
  });

  // ---- start

  let live = null;
  document.addEventListener("htmx:afterSettle", (event) => showTimes(event.detail.elt.parentNode || document));
  document.addEventListener("htmx:responseError", (event) => {
    const { elt, xhr } = event.detail;
    if (xhr.getResponseHeader("HX-Redirect")) return;
    const notice = readNotice(xhr);
    if (elt.matches("form") && notice) {
      elt.querySelector(":scope > .notice")?.remove();
      elt.prepend(notice);
    } else if (xhr.status === 404 && elt.matches("[hx-trigger*=refresh-live]")) {
      if (live && !live.isEnded) showGone(notice);
    } else {
      toast(readMessage(xhr, notice));
    }
  });

  // The part of a page that says what went wrong; null if the answer is none of ours.
  function readNotice(xhr) {
    const place = document.createElement("template");
    if (/^text\/html/.test(xhr.getResponseHeader("Content-Type") || "")) place.innerHTML = xhr.responseText;
    return place.content.querySelector(".notice");
  }

  function readMessage(xhr, notice) {
    if (notice) return [...notice.querySelectorAll("strong, p")].map((part) => part.textContent).join(" ");
    try {
      const body = JSON.parse(xhr.responseText);
      return body.error + " " + body.suggestion;
    } catch {
      return "The server answered with an error (" + xhr.status + ").";
    }
  }

  // What the page shows was deleted: it stays to be read, and is not asked for any more.
  function showGone(notice) {
    live.end("Deleted");
    if (notice && !document.querySelector('[data-ended="Deleted"]')) document.getElementById("content").prepend(notice);
  }
  document.addEventListener("htmx:sendError", () => toast("The server cannot be reached."));

  document.addEventListener("DOMContentLoaded", () => {
    showTimes(document);
    prepareMenu();
    document.querySelectorAll("form[data-draft]").forEach(restoreDraft);
    const element = document.querySelector("[data-live]");
    if (element) live = new Live(element);
    const log = document.querySelector("[data-log-live]");
    if (log) new Log(log);
  });
})();
