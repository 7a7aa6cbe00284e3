// Owns: how the workbench is set up when a test drives it. The flags that drop the token and workspace trust stand here and
// nowhere else. Must never be imported by what `npm start` runs.

export const testFlags = ["--without-connection-token", "--disable-workspace-trust"];

export const testSettings = {
  "workbench.startupEditor": "none",
  "telemetry.telemetryLevel": "off",
  "extensions.autoUpdate": false,
  "extensions.autoCheckUpdates": false,
  "extensions.ignoreRecommendations": true,
  "security.workspace.trust.enabled": false,
  "chat.disableAIFeatures": true,
  // A test says itself when what is read: what runs beside it by itself would change what it sees.
  "ringside.readAhead": "off",
};

/** The same with workspace trust as users have it: a new folder opens in Restricted Mode, without a question about it. */
export const restrictedFlags = ["--without-connection-token"];

export const restrictedSettings = {
  ...testSettings,
  "security.workspace.trust.enabled": true,
  "security.workspace.trust.startupPrompt": "never",
};
