"use strict";

// Pages of the fleet, tasks, leases and the server: time left that ticks, and folds that stay open when a
// part of the page is replaced.

(() => {
  function left(moment) {
    const seconds = Math.ceil((moment - Date.now()) / 1000);
    if (seconds <= 0) return "ended";
    const hours = Math.floor(seconds / 3600);
    const minutes = Math.floor((seconds % 3600) / 60);
    const rest = String(seconds % 60).padStart(2, "0");
    if (hours >= 48) return Math.floor(hours / 24) + " days";
    return hours ? hours + ":" + String(minutes).padStart(2, "0") + ":" + rest : minutes + ":" + rest;
  }

  function tick() {
    if (document.hidden) return;
    for (const element of document.querySelectorAll("time[data-left]")) {
      const moment = new Date(element.dateTime);
      if (Number.isNaN(moment.getTime())) continue;
      const text = left(moment);
      if (element.textContent !== text) element.textContent = text;
      element.toggleAttribute("data-soon", moment - Date.now() < 15000);
    }
  }

  const open = new Set();
  document.addEventListener("toggle", (event) => {
    const fold = event.target;
    if (fold.tagName !== "DETAILS" || !fold.id) return;
    if (fold.open) open.add(fold.id);
    else if (fold.isConnected) open.delete(fold.id);
  }, true);

  function restore() {
    for (const id of open) {
      const fold = document.getElementById(id);
      if (fold) fold.open = true;
    }
    tick();
  }

  document.addEventListener("htmx:afterSwap", restore);
  document.addEventListener("visibilitychange", tick);
  document.addEventListener("DOMContentLoaded", tick);
  setInterval(tick, 1000);
})();
