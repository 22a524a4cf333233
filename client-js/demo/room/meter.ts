import { byId } from "../dom.js";

/** Seconds that the curve shows. */
const SPAN = 60;

/** Counts messages, and draws how many a second there were in the last minute. */
export class Meter {
  private sent = 0;
  private received = 0;
  private second = 0;
  private readonly rates: number[] = new Array<number>(SPAN).fill(0);
  private readonly spark = byId<SVGElement>("spark");

  private readonly timer = setInterval(() => this.tick(), 1000);

  constructor() {
    this.draw();
  }

  stop(): void {
    clearInterval(this.timer);
  }

  out(): void {
    byId("sent").textContent = String(++this.sent);
    this.second++;
  }

  in(): void {
    byId("received").textContent = String(++this.received);
    this.second++;
  }

  private tick(): void {
    const idle = this.second === 0 && this.rates.every((rate) => rate === 0);
    this.rates.shift();
    this.rates.push(this.second);
    byId("rate").textContent = String(this.second);
    this.second = 0;
    if (!idle) this.draw();
  }

  private draw(): void {
    const top = Math.max(4, ...this.rates);
    const points = this.rates.map((rate, x) => `${((x / (SPAN - 1)) * 60).toFixed(2)} ${(19 - (rate / top) * 18).toFixed(2)}`);
    this.spark.querySelector(".stroke")?.setAttribute("d", `M${points.join("L")}`);
    this.spark.querySelector(".area")?.setAttribute("d", `M0 20L${points.join("L")}L60 20Z`);
  }
}
