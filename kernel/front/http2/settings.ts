/** SETTINGS (RFC 9113, 6.5): what we say of ourselves, and what a peer says of itself. */
import {
  ConnectionError,
  defaultFrameSize,
  defaultWindow,
  errorCode,
  largestWindow,
  protocolError,
  setting,
  settingsFrame,
} from './frames.ts';
import { streamReceiveWindow } from './stream.ts';

export interface ServerLimits {
  readonly maxStreams: number;
  /** Bytes of the headers of one request, as SETTINGS_MAX_HEADER_LIST_SIZE counts them. */
  readonly maxHeaderSize: number;
}

/** Larger frames would let one stream hold the socket for longer. */
const largestFrameSent = 64 * 1024;

export function serverSettings(limits: ServerLimits): Buffer {
  return settingsFrame([
    [setting.maxConcurrentStreams, limits.maxStreams],
    [setting.initialWindowSize, streamReceiveWindow],
    [setting.maxHeaderListSize, limits.maxHeaderSize],
  ]);
}

export class PeerSettings {
  initialWindow = defaultWindow;
  maxFrameSize = defaultFrameSize;
  /** It has said something of its header table, which a header block must answer to. */
  tableChanged = false;

  /** @throws ConnectionError on values that the protocol forbids. Unknown settings are ignored. */
  apply(payload: Buffer): void {
    for (let at = 0; at < payload.length; at += 6) this.#apply(payload.readUInt16BE(at), payload.readUInt32BE(at + 2));
  }

  #apply(id: number, value: number): void {
    switch (id) {
      case setting.headerTableSize:
        this.tableChanged = true;
        return;
      case setting.enablePush:
        if (value > 1) throw protocolError(`SETTINGS_ENABLE_PUSH of ${value}`);
        return;
      case setting.initialWindowSize:
        if (value > largestWindow) throw new ConnectionError(errorCode.flowControl, `initial window of ${value}`);
        this.initialWindow = value;
        return;
      case setting.maxFrameSize:
        if (value < defaultFrameSize || value > 0xff_ffff) {
          throw protocolError(`SETTINGS_MAX_FRAME_SIZE of ${value}`);
        }
        this.maxFrameSize = Math.min(value, largestFrameSent);
    }
  }
}
