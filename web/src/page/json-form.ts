// A form with tensors in JSON beside their result: what the tabs of operators and graphs share. The
// elements are those of index.html whose ids begin with the form's name.

import { alertIn, element, h } from './dom.ts';

/** What a run gave: the JSON, and a line about it. */
export interface Outcome {
  readonly json: string;
  readonly about: string;
}

/** One form. */
export class JsonForm {
  readonly input: HTMLTextAreaElement;
  readonly output: HTMLPreElement;
  private readonly alert: HTMLElement;
  private readonly status: HTMLElement;
  private readonly button: HTMLButtonElement;
  private busy = false;
  private ready = true;

  constructor(
    name: string,
    compute: () => Promise<Outcome>,
    /** What is there only beside a result. */
    private readonly after?: HTMLElement,
  ) {
    const form = element(`${name}-form`, HTMLFormElement);
    this.input = element(`${name}-input`, HTMLTextAreaElement);
    this.output = element(`${name}-output`, HTMLPreElement);
    this.alert = element(`${name}-alert`, HTMLElement);
    this.status = element(`${name}-status`, HTMLElement);
    this.button = element(`${name}-run`, HTMLButtonElement);
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      if (this.ready && !this.busy) void this.run(compute);
    });
    this.input.addEventListener('keydown', (event) => {
      if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
  }

  /** Whether there is a module to run; without one the last result goes, too. */
  setReady(ready: boolean): void {
    this.ready = ready;
    this.button.disabled = this.busy || !ready;
    if (!ready) {
      this.show(undefined);
      alertIn(this.alert);
    }
  }

  /** A line about the result, which is read out. */
  tell(line: string): void {
    this.status.replaceChildren(h('p', { className: 'hint' }, line));
  }

  /** What went wrong, read out at once. */
  fail(title: string, error: unknown): void {
    alertIn(this.alert, title, error);
  }

  private async run(compute: () => Promise<Outcome>): Promise<void> {
    alertIn(this.alert);
    this.busy = true;
    this.button.disabled = true;
    this.tell('Computing …');
    try {
      const { json, about } = await compute();
      this.show(json);
      this.tell(about);
      this.input.removeAttribute('aria-invalid');
    } catch (error) {
      this.show(undefined);
      this.status.replaceChildren();
      this.input.setAttribute('aria-invalid', 'true');
      this.fail('There is no result', error);
    } finally {
      this.busy = false;
      this.button.disabled = !this.ready;
    }
  }

  private show(json: string | undefined): void {
    this.output.textContent = json ?? '';
    this.output.hidden = json === undefined;
    if (this.after) this.after.hidden = json === undefined;
  }
}
