// The camera: what it sees, and pictures of it. Pictures are PNG files, so that the module decodes
// them as it decodes every other.

/** A running camera, shown in a video element. */
export class Camera {
  private constructor(
    private readonly stream: MediaStream,
    private readonly video: HTMLVideoElement,
  ) {}

  /** Asks for the camera and shows it; throws a sentence when it cannot. */
  static async start(video: HTMLVideoElement): Promise<Camera> {
    const devices = navigator.mediaDevices as MediaDevices | undefined;
    if (!devices)
      throw new Error('this browser gives no camera to pages from this address (https or localhost is needed)');
    let stream: MediaStream;
    try {
      stream = await devices.getUserMedia({
        audio: false,
        video: { facingMode: 'environment', width: { ideal: 640 } },
      });
    } catch (error) {
      const name = error instanceof DOMException ? error.name : '';
      const why: Record<string, string> = {
        NotAllowedError:
          'this page was not allowed to use the camera; the browser asks again when its setting for this page is changed',
        NotFoundError: 'no camera was found',
        NotReadableError: 'another program uses the camera',
      };
      throw new Error(why[name] ?? `the camera cannot be used: ${String(error)}`, { cause: error });
    }
    video.srcObject = stream;
    try {
      await video.play();
    } catch (error) {
      for (const track of stream.getTracks()) track.stop();
      throw new Error('the camera gives no picture', { cause: error });
    }
    return new Camera(stream, video);
  }

  /** What is seen now, as a PNG file. */
  async take(): Promise<Blob> {
    const { videoWidth: width, videoHeight: height } = this.video;
    const canvas = Object.assign(document.createElement('canvas'), { width, height });
    const context = canvas.getContext('2d');
    if (!context || width === 0) throw new Error('the camera gives no picture yet');
    context.drawImage(this.video, 0, 0);
    const blob = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, 'image/png'));
    if (!blob) throw new Error('the camera gives no picture');
    return blob;
  }

  /** Lets the camera go. */
  stop(): void {
    for (const track of this.stream.getTracks()) track.stop();
    this.video.srcObject = null;
  }
}
