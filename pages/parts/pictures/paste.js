// Pictures pasted anywhere on the page go into its upload field.
export default function ({ parentElement }) {
  const paste = (event) => {
    const input = document.querySelector("[data-testid=stFileUploader] input[type=file]");
    const files = [...(event.clipboardData?.files || [])].filter((file) => file.type.startsWith("image/"));
    if (!input || !files.length) return;
    const stamp = new Date().toISOString().slice(11, 19).replaceAll(":", "");
    const moved = new DataTransfer();
    files.forEach((file, number) => {
      const suffix = file.type.split("/")[1].replace("svg+xml", "svg");
      moved.items.add(new File([file], `pasted-${stamp}${number ? `-${number}` : ""}.${suffix}`, { type: file.type }));
    });
    input.files = moved.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  };
  document.addEventListener("paste", paste);
  return () => document.removeEventListener("paste", paste);
}
