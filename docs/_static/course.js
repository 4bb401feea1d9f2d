document.addEventListener("DOMContentLoaded", () => {
  // The theme labels these with other words than they show; what is shown is the better name.
  for (const named of document.querySelectorAll("button.search-button-field, details.hide summary")) {
    named.removeAttribute("aria-label");
  }
  // Blocks that scroll sideways must be reachable from the keyboard.
  for (const block of document.querySelectorAll("div.highlight pre, .output pre, .pst-scrollable-table-container")) {
    if (block.scrollWidth > block.clientWidth) block.tabIndex = 0;
  }
});
