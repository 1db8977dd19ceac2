// The SharedWorker: it holds one watch for all tabs of a browser.

import { Hub } from "./hub";
import type { FromTab, ToTab } from "./shared";

const hub = new Hub();

(globalThis as unknown as { onconnect: (event: MessageEvent) => void }).onconnect = (event) => {
  const port = event.ports[0];
  if (!port) return;
  const closes = new Map<number, () => void>();
  const gone = () => {
    for (const close of closes.values()) close();
    closes.clear();
    hub.looked(port, null);
  };
  hub.looked(port, true);
  port.onmessage = ({ data }: MessageEvent<FromTab>) => {
    switch (data.kind) {
      case "open":
        closes.set(data.id, hub.open(data.wanted, (news) => port.postMessage({ id: data.id, news } satisfies ToTab)));
        break;
      case "close":
        closes.get(data.id)?.();
        closes.delete(data.id);
        break;
      case "visible":
        hub.looked(port, data.visible);
        break;
      case "lock":
        // A port says nothing when its tab is gone, but the tab's lock is free then.
        void navigator.locks.request(data.name, () => gone());
        break;
      case "bye":
        gone();
        break;
      case "forget":
        hub.forget();
    }
  };
};
