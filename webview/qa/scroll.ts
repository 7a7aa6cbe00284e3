// Owns: following the end of the conversation while it grows. Must never move the view of a user who scrolled away from the end.
const nearEndPixels = 32;

export class EndFollower {
  readonly #region: HTMLElement;
  readonly #onFollow: (isFollowing: boolean) => void;
  #isFollowing = true;
  #lastTop = 0;

  /** `content`: what grows inside the scrolled region. */
  constructor(region: HTMLElement, content: HTMLElement, onFollow: (isFollowing: boolean) => void) {
    this.#region = region;
    this.#onFollow = onFollow;
    region.addEventListener("scroll", () => this.#onScroll(), { passive: true });
    // Fonts, folds and a narrower view change the height as well, after it was drawn.
    new ResizeObserver(() => this.settle()).observe(content);
  }

  /** After the conversation was drawn. */
  settle(): void {
    if (this.#isFollowing) this.#region.scrollTop = this.#region.scrollHeight;
  }

  toEnd(): void {
    this.#set(true);
    this.settle();
  }

  /** Content that grew is no sign of the user's will; going up is. */
  #onScroll(): void {
    const { scrollHeight, scrollTop, clientHeight } = this.#region;
    const isNearEnd = scrollHeight - scrollTop - clientHeight < nearEndPixels;
    if (isNearEnd) this.#set(true);
    else if (scrollTop < this.#lastTop) this.#set(false);
    this.#lastTop = scrollTop;
  }

  #set(isFollowing: boolean): void {
    if (isFollowing === this.#isFollowing) return;
    this.#isFollowing = isFollowing;
    this.#onFollow(isFollowing);
  }
}
