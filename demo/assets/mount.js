// Gradio builds its tabs late and may build them again: calls `start` with each new element that has the ID.
export function mount(id, start) {
  const look = () => {
    const element = document.getElementById(id);
    if (element && !element.dataset.mounted) {
      element.dataset.mounted = "yes";
      start(element);
    }
  };
  new MutationObserver(look).observe(document.documentElement, {childList: true, subtree: true});
  look();
}
