// Owns: what the two ends of the engine's process wall agree on besides the messages.

/** The host's end of the stream: the first descriptor after standard input, output and error. */
export const engineStreamDescriptor = 3;
