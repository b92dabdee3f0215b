"use strict";

// A form is sent once, also by a double click. What the browser shows again can be sent again.
addEventListener("submit", (event) => {
  if (event.target.hasAttribute("aria-busy")) {
    event.preventDefault();
  }
  event.target.setAttribute("aria-busy", "true");
});
addEventListener("pageshow", () => {
  for (const form of document.forms) {
    form.removeAttribute("aria-busy");
  }
});
