// The suite that runs inside a real extension host. The files register their tests when they are imported.
import Mocha from "mocha";

/** A first question reads the folder and loads the model, on whatever machine this runs. */
const testLimitMs = 180_000;

export async function run(): Promise<void> {
  const mocha = new Mocha({ ui: "bdd", timeout: testLimitMs, slow: 10_000 });
  mocha.suite.emit("pre-require", globalThis, "workbench", mocha);
  await import("./activation.test");
  await import("./words.test");
  await import("./repoFiles.test");
  await import("./models.test");
  await import("./selection.test");
  await import("./questions.test");
  await import("./contextView.test");
  await import("./readAhead.test");
  await import("./deleteAllData.test");
  await import("./death.test");
  await new Promise<void>((resolve, reject) => {
    mocha.run((failures) => {
      if (failures === 0) resolve();
      else reject(new Error(`${String(failures)} failed`));
    });
  });
}
