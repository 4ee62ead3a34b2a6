import { track } from "ancrage";

/** What weavy's script `SysNotification_Deal_ParseForEach` does. */
export default track("deal", ({ action, after, trigger }) => {
  if (action === "insert" && after.is_project) trigger("NewOpportunity", after.id);
});
