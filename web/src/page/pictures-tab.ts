// Tab two: what a picture shows. The picture's bytes go to the signed actor as they are: decoding,
// resizing and labels are the module's, as on the server.

import { MAX_PICTURE_BYTES } from '../lib/classifier.ts';
import { Camera } from './camera.ts';
import type { Entry } from './catalogue.ts';
import { ModuleWorker } from './client.ts';
import { alertIn, element, h } from './dom.ts';
import type { Loaded, Tasks } from './messages.ts';
import { ModuleCard } from './module-card.ts';
import { clearResult, showResult } from './result-view.ts';
import type { TrustPanel } from './trust-panel.ts';

const TOP = 5;
// A sample no larger than this is shown enlarged, pixel by pixel.
const SMALL_PIXELS = 96;

/** Makes the tab work; gives what loads its first model. */
export function startPictures(entries: readonly Entry[], trust: TrustPanel): () => void {
  return new PicturesTab(entries, trust).begin;
}

class PicturesTab {
  private readonly worker = new ModuleWorker();
  private readonly alert = element('picture-alert', HTMLElement);
  private readonly drop = element('drop', HTMLElement);
  private readonly preview = element('preview', HTMLImageElement);
  private readonly video = element('video', HTMLVideoElement);
  private readonly invite = element('invite', HTMLElement);
  private readonly cameraButton = element('camera', HTMLButtonElement);
  private readonly takeButton = element('camera-take', HTMLButtonElement);
  private readonly liveButton = element('camera-live', HTMLButtonElement);
  private readonly card: ModuleCard<Tasks['classifier']['answer'] & Loaded>;
  private camera: Camera | undefined;
  private live = false;
  private ready = false;
  /** The picture that waits for a model, or that the last answer was about. */
  private picture: Blob | undefined;
  private attempt = 0;

  /** Loads the first model. */
  readonly begin = () => this.card.loadChosen();

  constructor(entries: readonly Entry[], trust: TrustPanel) {
    this.card = new ModuleCard({
      place: element('picture-module', HTMLElement),
      what: 'model',
      entries,
      trust,
      load: (given, progress) => this.worker.load('classifier', given, progress),
      unloaded: () => {
        this.ready = false;
        this.attempt += 1;
        alertIn(this.alert);
        if (this.picture) clearResult('Waiting for a model …');
        this.showSamples([]);
      },
      loaded: (_, entry) => {
        this.ready = true;
        this.showSamples(entry?.samples ?? []);
        if (this.picture) void this.classify(this.picture);
      },
      facts: ({ card }) =>
        card
          ? [
              [
                'Model',
                `${card.description || card.name}; ${card.labels} labels; ${card.licence || 'no licence given'}`,
              ],
            ]
          : [],
    });
    const file = element('picture-file', HTMLInputElement);
    file.addEventListener('change', () => {
      this.open(file.files?.[0]);
      file.value = '';
    });
    this.acceptDrops();
    addEventListener('paste', (event) => {
      const [pasted] = event.clipboardData?.files ?? [];
      if (pasted && !element('pictures', HTMLElement).hidden) this.open(pasted);
    });
    this.cameraButton.addEventListener('click', () => {
      if (this.camera) this.stopCamera();
      else void this.startCamera();
    });
    this.takeButton.addEventListener('click', () => void this.take());
    this.liveButton.addEventListener('click', () => void this.toggleLive());
  }

  private acceptDrops(): void {
    const { drop } = this;
    // Everywhere on the page: a picture dropped beside the frame would replace the page.
    addEventListener('dragover', (event) => {
      event.preventDefault();
      drop.classList.add('over');
    });
    addEventListener('dragleave', (event) => {
      if (!event.relatedTarget) drop.classList.remove('over');
    });
    addEventListener('drop', (event) => {
      event.preventDefault();
      drop.classList.remove('over');
      const [dropped] = event.dataTransfer?.files ?? [];
      if (!element('pictures', HTMLElement).hidden) {
        if (dropped) this.open(dropped);
        else
          alertIn(
            this.alert,
            'That was no file',
            'drop a picture from this computer; pictures of other pages have to be saved first',
          );
      }
    });
  }

  private showSamples(samples: readonly string[]): void {
    const buttons = samples.map((url) => {
      const name = new URL(url, location.href).pathname.split('/').at(-1) ?? url;
      const button = h('button', { type: 'button', title: name }, h('img', { src: url, alt: `Sample ${name}` }));
      button.addEventListener('click', () => void this.openSample(url, name));
      return button;
    });
    const place = element('samples', HTMLElement);
    place.replaceChildren(...(buttons.length > 0 ? [h('span', {}, 'Or try one of these'), ...buttons] : []));
    place.hidden = buttons.length === 0;
  }

  private async openSample(url: string, name: string): Promise<void> {
    const response = await fetch(url).catch(() => undefined);
    if (response?.ok) this.open(new File([await response.blob()], name));
    else alertIn(this.alert, 'The sample is not there', 'the server does not answer');
  }

  /** Shows a picture and classifies it, now or when a model is there. */
  private open(picture: Blob | undefined): void {
    if (!picture) return;
    this.stopCamera();
    alertIn(this.alert);
    this.picture = picture;
    URL.revokeObjectURL(this.preview.src);
    this.preview.onload = () => {
      this.preview.classList.toggle('small', this.preview.naturalWidth <= SMALL_PIXELS);
    };
    this.preview.onerror = () => {
      this.preview.hidden = true;
      this.invite.hidden = false;
    };
    this.preview.alt = picture instanceof File ? `The picture ${picture.name}` : 'The picture';
    this.preview.src = URL.createObjectURL(picture);
    this.preview.hidden = false;
    this.invite.hidden = true;
    if (this.ready) void this.classify(picture);
    else clearResult('Waiting for a model …');
  }

  private async classify(picture: Blob, say = true): Promise<void> {
    this.attempt += 1;
    const { attempt } = this;
    if (say) clearResult('Looking …');
    try {
      if (picture.size > MAX_PICTURE_BYTES) {
        throw new Error(
          `the picture has ${(picture.size / 2 ** 20).toFixed(1)} MiB, more than ${MAX_PICTURE_BYTES >> 20} MiB`,
        );
      }
      const bytes = await picture.arrayBuffer();
      const result = await this.worker.run('classify', { picture: bytes, top: TOP }, [bytes]);
      if (attempt !== this.attempt) return;
      alertIn(this.alert);
      showResult(result, say);
    } catch (error) {
      if (attempt !== this.attempt) return;
      this.live = false;
      clearResult();
      alertIn(this.alert, 'The picture is not classified', error);
    }
  }

  private async startCamera(): Promise<void> {
    alertIn(this.alert);
    this.cameraButton.disabled = true;
    try {
      this.video.hidden = false;
      this.camera = await Camera.start(this.video);
    } catch (error) {
      alertIn(this.alert, 'There is no camera', error);
    } finally {
      this.cameraButton.disabled = false;
      this.showCamera();
    }
  }

  private stopCamera(): void {
    this.camera?.stop();
    this.camera = undefined;
    this.live = false;
    this.showCamera();
  }

  private showCamera(): void {
    const on = this.camera !== undefined;
    this.video.hidden = this.takeButton.hidden = this.liveButton.hidden = !on;
    this.preview.hidden = on || !this.preview.src;
    this.invite.hidden = on || !this.preview.hidden;
    this.cameraButton.textContent = on ? 'Stop the camera' : 'Use the camera';
    this.liveButton.setAttribute('aria-pressed', String(this.live));
  }

  private async take(): Promise<void> {
    try {
      const picture = await this.camera?.take();
      this.open(picture);
    } catch (error) {
      alertIn(this.alert, 'There is no picture', error);
    }
  }

  /** One picture after the other, as fast as the model answers, until it is switched off. */
  private async toggleLive(): Promise<void> {
    this.live = !this.live && this.ready;
    if (!this.ready) alertIn(this.alert, 'There is no model', 'wait for it, or choose one below');
    this.showCamera();
    while (this.live && this.camera && this.ready) {
      try {
        const picture = await this.camera.take();
        await this.classify(picture, false);
      } catch (error) {
        this.live = false;
        alertIn(this.alert, 'There is no picture', error);
      }
    }
    this.live = false;
    this.showCamera();
  }
}
