// Calls that were denied: what the page knew of the caller's rights is no longer true.

const listeners: (() => void)[] = [];

export const onDenial = (listener: () => void): void => void listeners.push(listener);

export const denied = (): void => listeners.forEach((each) => each());
