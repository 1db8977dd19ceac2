import{f as e}from"./namespace_pb-DKoKUpm-.js";import{H as a}from"./index-tV0qcI5U.js";const o=a(e);export{o as n};
