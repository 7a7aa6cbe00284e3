// Owns: following the end of the conversation while it grows. Must never move the view of a user who scrolled away from the end.
const nearEndPixels = 32;

export class EndFollower {
  readonly #region: HTMLElement;
  readonly #onFollow: (isFollowing: boolean) => void;
  #isFollowing = true;

  constructor(region: HTMLElement, onFollow: (isFollowing: boolean) => void) {
    this.#region = region;
    this.#onFollow = onFollow;
    region.addEventListener("scroll", () => this.#set(this.#isNearEnd()), { passive: true });
  }

  /** After the conversation was drawn. */
  settle(): void {
    if (this.#isFollowing) this.#region.scrollTop = this.#region.scrollHeight;
  }

  toEnd(): void {
    this.#set(true);
    this.settle();
  }

  #isNearEnd(): boolean {
    const { scrollHeight, scrollTop, clientHeight } = this.#region;
    return scrollHeight - scrollTop - clientHeight < nearEndPixels;
  }

  #set(isFollowing: boolean): void {
    if (isFollowing === this.#isFollowing) return;
    this.#isFollowing = isFollowing;
    this.#onFollow(isFollowing);
  }
}
