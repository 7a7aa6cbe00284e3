// Anything that is to be let go when the extension ends; VS Code asks for no more than this.
export interface Disposable {
  dispose(): unknown;
}
