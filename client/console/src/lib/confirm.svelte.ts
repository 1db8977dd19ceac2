// Questions before something is done: one dialog for the whole page (parts/Question.svelte).

export interface Question {
  text: string;
  /** Must be typed before it is done, '' for nothing. */
  typed: string;
  /** Asked for with this label, '' for no entry. */
  entry: string;
  value: string;
}

class Asked {
  question = $state.raw<Question>();
  private settle: (answer: string | undefined) => void = () => {};

  ask(question: Question): Promise<string | undefined> {
    this.settle(undefined);
    this.question = question;
    return new Promise((settle) => (this.settle = settle));
  }

  answer(value: string | undefined): void {
    this.question = undefined;
    this.settle(value);
  }
}

export const asked = new Asked();

/** Whether the user agrees; with `typed` they must type it, too. */
export async function agreed(text: string, typed = ""): Promise<boolean> {
  return (await asked.ask({ text, typed, entry: "", value: "" })) !== undefined;
}

/** The text that the user enters; undefined if the user cancels. */
export const entered = (text: string, entry: string, value: string): Promise<string | undefined> => asked.ask({ text, typed: "", entry, value });
