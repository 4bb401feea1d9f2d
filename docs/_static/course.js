// Blocks that scroll sideways must be reachable from the keyboard.
document.addEventListener("DOMContentLoaded", () => {
  for (const block of document.querySelectorAll("div.highlight pre, .output pre, .pst-scrollable-table-container")) {
    if (block.scrollWidth > block.clientWidth) block.tabIndex = 0;
  }
});
