import{e}from"./namespace_pb-6U13yBpr.js";import{H as a}from"./index-CVkVUnLG.js";const o=a(e);export{o as n};
