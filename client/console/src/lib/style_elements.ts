// xterm makes <style> elements, which the page's security policy forbids; a constructed style sheet with the same rules is
// allowed. Its option `documentOverride` does not reach all of its parts.

/** Runs something that makes <style> elements: each becomes a style sheet of the document until it is removed. */
export function withoutStyleElements(run: () => void): void {
  const make = document.createElement.bind(document);
  document.createElement = ((tag: string, options?: ElementCreationOptions) =>
    tag === "style" ? standIn(make("span")) : make(tag, options)) as typeof document.createElement;
  try {
    run();
  } finally {
    // The method of the prototype is there again.
    Reflect.deleteProperty(document, "createElement");
  }
}

function standIn(element: HTMLElement): HTMLElement {
  const sheet = new CSSStyleSheet();
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
  element.hidden = true;
  Object.defineProperties(element, {
    textContent: { set: (rules: string) => sheet.replaceSync(rules) },
    remove: {
      value: () => {
        document.adoptedStyleSheets = document.adoptedStyleSheets.filter((each) => each !== sheet);
        HTMLElement.prototype.remove.call(element);
      },
    },
  });
  return element;
}
