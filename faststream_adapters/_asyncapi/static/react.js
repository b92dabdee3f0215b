"use strict";

const root = document.getElementById("asyncapi");

async function show() {
  const response = await fetch(root.dataset.document);
  if (!response.ok) {
    throw new Error(`HTTP ${response.status}`);
  }
  const schema = await response.text();
  AsyncApiStandalone.render({ schema, config: JSON.parse(root.dataset.config) }, root);
}

show().catch((error) => {
  root.textContent = `The AsyncAPI document cannot be shown: ${error.message}`;
});
