// What lies in the warehouse, and what has been promised of it.

export interface StockItem {
  readonly article: string;
  readonly onShelf: number;
  readonly reserved: number;
  /** Order more when fewer than this are free. */
  readonly reorderLevel: number;
}

/** How many pieces can still be promised. */
export function freePieces(item: StockItem): number {
  return Math.max(0, item.onShelf - item.reserved);
}

/** Takes pieces off the shelf; throws when there are not enough. */
export function takeFromShelf(item: StockItem, pieces: number): StockItem {
  if (pieces > item.onShelf) throw new Error(`${item.article}: only ${item.onShelf} on the shelf`);
  return { ...item, onShelf: item.onShelf - pieces, reserved: Math.max(0, item.reserved - pieces) };
}

/** Puts pieces aside for an order. */
export function reservePieces(item: StockItem, pieces: number): StockItem {
  if (pieces > freePieces(item)) throw new Error(`${item.article}: only ${freePieces(item)} free`);
  return { ...item, reserved: item.reserved + pieces };
}

/** The articles of which more must be ordered, those with the fewest free pieces first. */
export function articlesToReorder(items: readonly StockItem[]): string[] {
  return items
    .filter((item) => freePieces(item) < item.reorderLevel)
    .sort((a, b) => freePieces(a) - freePieces(b))
    .map((item) => item.article);
}
