"use strict";

const find = (selector) => document.querySelector(selector);

// Removing the viewer shows the server-rendered page, which is in the document anyway.
let loaded = false;
addEventListener("asyncapi-load", () => {
  loaded = true;
});
for (const name of ["asyncapi-error", "error", "unhandledrejection"]) {
  addEventListener(name, () => {
    if (!loaded) {
      find("asyncapi-viewer")?.remove();
    }
  });
}

// What the viewer has loaded is shaped for showing it. Readers download the document itself.
addEventListener(
  "click",
  (event) => {
    const link = event.composedPath().find((each) => each.localName === "a" && each.download);
    if (link) {
      link.href = find("link[rel=alternate]").href;
    }
  },
  { capture: true },
);
